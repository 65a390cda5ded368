// Any bytes as options, frames, prompts and calls, on a backend that needs no network. Memory is what a caller would
// own: planes lie in buffers that are as large as a frame with the strides that are taken can be.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "fake_backend.hpp"
#include "fuser.hpp"
#include "handle.hpp"

namespace {

constexpr int kWidth = 21, kHeight = 13;
constexpr std::size_t kLargestStride = 4096, kPlane = kLargestStride * kHeight;

class Bytes {
public:
    Bytes(const std::uint8_t *data, std::size_t size) : data_(data), left_(size) {}

    template <typename T>
    T take() {
        T value{};
        const std::size_t count = std::min(left_, sizeof value);
        std::memcpy(&value, data_, count);
        data_ += count;
        left_ -= count;
        return value;
    }
    [[nodiscard]] bool empty() const { return left_ == 0; }

private:
    const std::uint8_t *data_;
    std::size_t left_;
};

tcmoa::Bundle small_bundle() {
    tcmoa::Bundle bundle;
    bundle.task = "vif";
    bundle.channel_order = "rgb";
    bundle.token_pixels = 16;
    bundle.contract = {.height = kHeight, .width = kWidth, .grid_height = 1, .grid_width = 2, .prompts = 1,
                       .batch = 1, .x_channels = 3, .y_channels = 1, .with_prompt = true};
    return bundle;
}

std::vector<std::uint8_t> &memory(int index) {
    static std::vector<std::uint8_t> buffers[3][3];
    auto &buffer = buffers[index / 3][index % 3];
    buffer.resize(kPlane);
    return buffer;
}

// Half of the frames begin sound, so that not all are refused at the first field.
tcmoa_frame take_frame(Bytes &bytes, int which) {
    tcmoa_frame frame;
    const auto kind = bytes.take<std::uint8_t>();
    tcmoa_frame_init(&frame, kind % 9, kWidth, kHeight, nullptr);
    if (kind >= 128) {
        frame = bytes.take<tcmoa_frame>();
        frame.cuda_stream = nullptr;
    } else {
        frame.strides[0] += bytes.take<std::uint8_t>() % 8;
        frame.matrix = kind % 5;
    }
    for (int i = 0; i < 3; ++i) {
        frame.planes[i] = bytes.take<std::uint8_t>() % 16 == 0 ? nullptr : memory(3 * which + i).data();
        // A stride that is taken must fit the buffer; beyond, the caller would have lied.
        if (frame.strides[i] > kLargestStride && frame.strides[i] < SIZE_MAX / 16) frame.strides[i] = kLargestStride;
    }
    return frame;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    Bytes bytes(data, size);
    auto options = bytes.take<tcmoa_options>();
    options.backend = bytes.take<std::uint8_t>() % 2 ? "openvino" : nullptr;
    tcmoa_fuser *fuser = nullptr;
    if (tcmoa_open("/nonexistent", &options, &fuser) == TCMOA_OK || fuser != nullptr) __builtin_trap();

    tcmoa_options_default(&options);
    options.slots = 1 + bytes.take<std::uint8_t>() % 3;
    auto bundle = std::make_unique<const tcmoa::Bundle>(small_bundle());
    const auto contract = bundle->contract;
    const auto script = std::make_shared<tcmoa::testing::Script>();
    fuser = new tcmoa_fuser(std::move(bundle), std::make_unique<tcmoa::testing::FakeBackend>(contract, script), options);

    std::uint64_t ticket = 0;
    float prompt[4];
    while (!bytes.empty()) {
        const auto call = bytes.take<std::uint8_t>();
        const auto x = take_frame(bytes, 0), y = take_frame(bytes, 1), fused = take_frame(bytes, 2);
        const auto numbers = bytes.take<std::array<float, 4>>();
        int status = TCMOA_OK;
        switch (call % 9) {
            case 0: status = tcmoa_fuse(fuser, &x, &y, &fused); break;
            case 1: status = tcmoa_fuse_with_prompt(fuser, &x, &y, &fused, prompt, call % 2 ? 4 : call); break;
            case 2: status = tcmoa_submit(fuser, &x, &y, &ticket); break;
            case 3: status = tcmoa_wait(fuser, call % 2 ? ticket : call, &fused, call % 3); break;
            case 4: status = tcmoa_discard(fuser, call % 2 ? ticket : call); break;
            case 5: status = tcmoa_set_prompt(fuser, numbers[0], numbers[1]); break;
            case 6: status = tcmoa_set_prompt_maps(fuser, numbers.data(), numbers.data() + 2, call % 2 ? 2 : call); break;
            case 7: script->fail_starts = 1; break;
            default: script->fail_runs = 1; break;
        }
        char text[256];
        if (status != TCMOA_OK && tcmoa_error(fuser, text, sizeof text) == 0) __builtin_trap();
    }
    tcmoa_close(&fuser);
    return 0;
}
