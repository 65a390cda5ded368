// Tests of the element need its plugin (GST_PLUGIN_PATH) and bundles (TCMOA_TEST_BUNDLES).
#define CATCH_CONFIG_RUNNER
#include <gst/gst.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>

namespace {

constexpr int kSkipped = 77;  // what CTest takes for "skipped"

}  // namespace

int main(int argc, char **argv) {
    if (std::getenv("TCMOA_TEST_BUNDLES") == nullptr) {
        std::cout << "skipped: TCMOA_TEST_BUNDLES is not set, the folder that tests/cpp_bundles.py wrote\n";
        return kSkipped;
    }
    gst_init(nullptr, nullptr);
    const int result = Catch::Session().run(argc, argv);
    gst_deinit();
    return result;
}
