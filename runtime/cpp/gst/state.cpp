#include "state.hpp"

namespace tcmoa::gst {

void State::reset() {
    x.reset();
    y.reset();
    first_x.reset();
    output_until = 0;
    failed = false;
    if (converter != nullptr) gst_video_converter_free(converter);
    converter = nullptr;
    qos.reset();
}

}  // namespace tcmoa::gst
