// Fuzzes options, frames, prompts and calls, with a backend that needs no network. Planes are in buffers that are large
// enough for every stride that a frame here can have.
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
constexpr int kMaxWidth = 1000, kMaxHeight = 64;  // of frames that a fit accepts
constexpr std::size_t kMaxStride = 4096, kPlaneBytes = kMaxStride * kMaxHeight;

// Consumes the fuzzer's input; zeros after its end.
class Input {
public:
    Input(const std::uint8_t *data, std::size_t size) : data_(data), left_(size) {}

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
    bundle.token_pixels = 8;
    bundle.contract = {.height = kHeight, .width = kWidth, .grid_height = 2, .grid_width = 3, .num_prompts = 1,
                       .batch = 1, .x_channels = 3, .y_channels = 1, .with_prompt = true};
    return bundle;
}

std::vector<std::uint8_t> &memory(int index) {
    static std::vector<std::uint8_t> buffers[3][3];
    auto &buffer = buffers[index / 3][index % 3];
    buffer.resize(kPlaneBytes);
    return buffer;
}

// Half of the frames are valid at first, so that not all of them are refused at the first field.
tcmoa_frame take_frame(Input &input, int index) {
    tcmoa_frame frame;
    const auto kind = input.take<std::uint8_t>();
    tcmoa_frame_init(&frame, kind % 9, kWidth, kHeight, nullptr);
    if (kind >= 128) {
        frame = input.take<tcmoa_frame>();
        frame.cuda_stream = nullptr;
        if (frame.width > 0 && frame.width <= 65536) frame.width = 1 + frame.width % kMaxWidth;
        if (frame.height > 0 && frame.height <= 65536) frame.height = 1 + frame.height % kMaxHeight;
    } else {
        frame.strides[0] += input.take<std::uint8_t>() % 8;
        frame.matrix = kind % 5;
    }
    for (int i = 0; i < 3; ++i) {
        frame.planes[i] = input.take<std::uint8_t>() % 16 == 0 ? nullptr : memory(3 * index + i).data();
        // A stride that the library accepts must fit the buffer.
        if (frame.strides[i] > kMaxStride && frame.strides[i] < SIZE_MAX / 16) frame.strides[i] = kMaxStride;
    }
    return frame;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    Input input(data, size);
    auto options = input.take<tcmoa_options>();
    options.backend = input.take<std::uint8_t>() % 2 ? "openvino" : nullptr;
    tcmoa_fuser *fuser = nullptr;
    if (tcmoa_open("/nonexistent", &options, &fuser) == TCMOA_OK || fuser != nullptr) __builtin_trap();

    tcmoa_options_default(&options);
    const auto slots_and_fit = input.take<std::uint8_t>();
    options.slots = 1 + slots_and_fit % 3;
    options.fit = slots_and_fit / 3 % 5;
    auto bundle = std::make_unique<const tcmoa::Bundle>(small_bundle());
    const auto contract = bundle->contract;
    const auto script = std::make_shared<tcmoa::testing::Script>();
    auto backend = std::make_unique<tcmoa::testing::FakeBackend>(contract, script);
    fuser = new tcmoa_fuser(std::move(bundle), std::move(backend), options);

    std::uint64_t ticket = 0;
    static std::vector<float> prompt(2 * kMaxWidth * kMaxHeight / 64 + 200), map(prompt.size(), 0.5F);
    while (!input.empty()) {
        const auto call = input.take<std::uint8_t>();
        const auto x = take_frame(input, 0), y = take_frame(input, 1), fused = take_frame(input, 2);
        const auto floats = input.take<std::array<float, 12>>();
        int status = TCMOA_OK;
        switch (call % 10) {
            case 0: status = tcmoa_fuse(fuser, &x, &y, &fused); break;
            case 1: {
                std::int32_t gw = 0, gh = 0;
                (void)tcmoa_get_grid(fuser, x.width, x.height, &gw, &gh);
                const auto count = call % 2 != 0 ? static_cast<std::size_t>(2 * gw * gh) : call;
                if (count <= prompt.size()) status = tcmoa_fuse_with_prompt(fuser, &x, &y, &fused, prompt.data(), count);
                break;
            }
            case 2: status = tcmoa_submit(fuser, &x, &y, &ticket); break;
            case 3: status = tcmoa_wait(fuser, call % 2 ? ticket : call, &fused, call % 3); break;
            case 4: status = tcmoa_discard(fuser, call % 2 ? ticket : call); break;
            case 5: status = tcmoa_set_prompt(fuser, floats[0], floats[1]); break;
            case 6: status = tcmoa_set_prompt_maps(fuser, floats.data(), floats.data() + 6, call % 2 ? 6 : call % 3); break;
            case 7: script->fail_starts = 1; break;
            case 8: {
                std::int32_t gw = 0, gh = 0;
                (void)tcmoa_get_grid(fuser, x.width, x.height, &gw, &gh);
                const auto count = call % 2 != 0 ? static_cast<std::size_t>(gw * gh) : call;
                status = tcmoa_set_prompt_maps_for_size(fuser, x.width, x.height, map.data(),
                                                        call % 3 != 0 ? map.data() : nullptr, count);
                break;
            }
            default: script->fail_runs = 1; break;
        }
        char text[256];
        if (status != TCMOA_OK && tcmoa_error(fuser, text, sizeof text) == 0) __builtin_trap();
    }
    tcmoa_close(&fuser);
    return 0;
}
