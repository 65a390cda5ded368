// Resizes images for check_resize.py: reads height, width, channels, and the height and width of the result as int64 from
// stdin, then the pixels; writes the pixels of the result to stdout; until the input ends.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "resize.hpp"

int main() {
    tcmoa::ResizeScratch scratch;
    std::int64_t header[5];
    while (std::fread(header, sizeof header, 1, stdin) == 1) {
        const auto row = static_cast<std::size_t>(header[1] * header[2]);
        std::vector<std::uint8_t> pixels(static_cast<std::size_t>(header[0]) * row);
        std::vector<std::uint8_t> result(static_cast<std::size_t>(header[3] * header[4] * header[2]));
        if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) return 1;
        tcmoa::resize_image({pixels.data(), row, {header[0], header[1]}, static_cast<int>(header[2])},
                            {header[3], header[4]}, result.data(), scratch);
        if (std::fwrite(result.data(), 1, result.size(), stdout) != result.size() || std::fflush(stdout) != 0) return 1;
    }
    return 0;
}
