// The tests need the plugin (GST_PLUGIN_PATH) and the test bundles (TCMOA_TEST_BUNDLES).
#define CATCH_CONFIG_RUNNER
#include <gst/gst.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>

namespace {

constexpr int kSkipped = 77;  // SKIP_RETURN_CODE in CMakeLists.txt

}  // namespace

int main(int argc, char **argv) {
    if (std::getenv("TCMOA_TEST_BUNDLES") == nullptr) {
        std::cout << "skipped: TCMOA_TEST_BUNDLES is not set; expected the folder that tests/cpp_bundles.py wrote\n";
        return kSkipped;
    }
    gst_init(nullptr, nullptr);
    const int result = Catch::Session().run(argc, argv);
    gst_deinit();
    return result;
}
