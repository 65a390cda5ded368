// A backend on the simulated GPU, frames whose result is known, and a caller with frames in GPU memory.
#pragma once

#include <cstring>
#include <random>

#include "backend.hpp"
#include "cuda.hpp"
#include "simulated.hpp"
#include "tensorrt.hpp"
#include "toy_bundle.hpp"

namespace tcmoa::testing {

// Checks when it is destroyed that the GPU was not misused and that everything was freed.
struct LeakCheck {
    LeakCheck() { simulated_reset(); }
    ~LeakCheck() {
        INFO(simulated::counts().first_misuse);
        CHECK(simulated::counts().misuses == 0);
        CHECK(simulated::counts().device_memory == 0);
        CHECK(simulated::counts().pinned_memory == 0);
        CHECK(simulated::counts().streams == 0);
        CHECK(simulated::counts().events == 0);
        CHECK(simulated::counts().graphs == 0);
        CHECK(simulated::counts().contexts == 0);
        CHECK(simulated::counts().engines == 0);
        CHECK(simulated_context_depth() == 0);
    }
    LeakCheck(const LeakCheck &) = delete;
    LeakCheck &operator=(const LeakCheck &) = delete;
};

struct GpuFixture {
    LeakCheck leak_check;
    ToyBundle toy;
    std::unique_ptr<cuda::Device> device;  // the caller's own reference
    std::unique_ptr<Backend> backend;

    explicit GpuFixture(const ToyBundle::Change &change = {}, bool graph = true, int index = 0) {
        toy.add_engine(change);
        device = std::make_unique<cuda::Device>(index);
        BackendOptions options;
        options.cuda_graph = graph;
        options.cuda_device = index;
        std::unique_ptr<Error> reason;
        backend = load_tensorrt(toy.open(), options, reason);
        if (!backend) FAIL(reason->what());
    }
};

// A pair of frames, the prompts, and the results of the toy engine.
struct Frame {
    Bytes x, y, fused;
    std::vector<float> scale, shift, prompt;

    explicit Frame(int seed) {
        std::minstd_rand random(static_cast<unsigned int>(seed + 1));
        const auto contract = toy_contract();
        const auto width = static_cast<std::size_t>(contract.width);
        const auto pixels = width * static_cast<std::size_t>(contract.height);
        for (std::size_t i = 0; i < 3 * pixels; ++i) x.push_back(static_cast<std::uint8_t>(random()));
        for (std::size_t i = 0; i < pixels; ++i) y.push_back(static_cast<std::uint8_t>(random()));
        for (std::size_t i = 0; i < contract.num_tokens(); ++i) {
            scale.push_back(static_cast<float>(random() % 8));
            shift.push_back(static_cast<float>(random() % 5) / 4 - 0.5F);
        }
        for (std::size_t i = 0; i < 3 * pixels; ++i) {
            const std::size_t row = i / 3 / width, column = i / 3 % width;
            const float value = static_cast<float>((x[i] + y[i / 3]) / 2) + 100 * shift[row / 8 * 3 + column / 8];
            fused.push_back(static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value));
        }
        for (std::size_t i = 0; i < contract.outputs()[1].num_elements(); ++i) {
            prompt.push_back(scale[0] * static_cast<float>(i));
        }
    }

    void put(const Slot &slot) const {
        const auto &tensors = slot.tensors();
        std::memcpy(tensors.x.data(), x.data(), tensors.x.size());
        std::memcpy(tensors.y.data(), y.data(), tensors.y.size());
        std::memcpy(tensors.scale.data(), scale.data(), tensors.scale.size_bytes());
        std::memcpy(tensors.shift.data(), shift.data(), tensors.shift.size_bytes());
    }

    [[nodiscard]] bool matches(const Slot &slot) const {
        const auto &tensors = slot.tensors();
        return std::equal(fused.begin(), fused.end(), tensors.fused.begin(), tensors.fused.end()) &&
               std::equal(prompt.begin(), prompt.end(), tensors.prompt.begin(), tensors.prompt.end());
    }
    void check(const Slot &slot) const { CHECK(matches(slot)); }
};

enum class CallerStream { own, blocking, legacy, per_thread };
inline constexpr CallerStream kCallerStreams[] = {CallerStream::own, CallerStream::blocking, CallerStream::legacy,
                                                  CallerStream::per_thread};

// A caller with three images in GPU memory, and a stream of its own or a default stream.
class GpuCaller {
public:
    explicit GpuCaller(const cuda::Device &device, CallerStream stream = CallerStream::own)
        : device_(device), driver_(cuda::Driver::get()) {
        const cuda::CurrentDevice current(device_);
        if (stream == CallerStream::own || stream == CallerStream::blocking) {
            CHECK(driver_.cuStreamCreate(&stream_, stream == CallerStream::own ? cuda::kStreamNonBlocking : 0) == 0);
            owned_ = cuda::Stream(stream_);
        } else if (stream == CallerStream::per_thread) {
            stream_ = cuda::kPerThreadStream;
        }
        for (auto &image : images_) image = cuda::new_device_memory(kBytes);
        staged_ = cuda::new_pinned_memory(2 * kBytes);
        std::memset(staged_.get(), 0x77, 2 * kBytes);
    }
    ~GpuCaller() {
        const cuda::CurrentDevice current(device_);
        (void)driver_.cuStreamSynchronize(stream());
        staged_.reset();
        for (auto &image : images_) image.reset();
        owned_.reset();
    }
    GpuCaller(const GpuCaller &) = delete;
    GpuCaller &operator=(const GpuCaller &) = delete;

    [[nodiscard]] void *stream() const { return stream_; }
    [[nodiscard]] void *memory(std::size_t i) const { return reinterpret_cast<void *>(images_[i].get()); }

    // Enqueue a write to an image; it is not done when this returns.
    void *write(std::size_t i, const Bytes &bytes) {
        const cuda::CurrentDevice current(device_);
        auto *staged = static_cast<std::uint8_t *>(staged_.get()) + kBytes;
        (void)driver_.cuStreamSynchronize(stream());
        if (i == 0) {
            std::memcpy(staged, bytes.data(), bytes.size());
        } else {
            std::memcpy(staged + kBytes / 2, bytes.data(), bytes.size());
            staged += kBytes / 2;
        }
        CHECK(driver_.cuMemcpyHtoDAsync_v2(images_[i].get(), staged, bytes.size(), stream()) == 0);
        return memory(i);
    }

    // Enqueue writes of other bytes to all images.
    void overwrite() {
        const cuda::CurrentDevice current(device_);
        for (auto &image : images_) {
            CHECK(driver_.cuMemcpyHtoDAsync_v2(image.get(), staged_.get(), kBytes, stream()) == 0);
        }
    }

    // The bytes of an image now, without waiting for any work.
    [[nodiscard]] Bytes read(std::size_t i, std::size_t bytes) const {
        const auto *start = static_cast<const std::uint8_t *>(memory(i));  // simulated GPU memory is host memory
        return {start, start + bytes};
    }

private:
    static constexpr std::size_t kBytes = 4096;
    const cuda::Device &device_;
    const cuda::Driver &driver_;
    cuda::Handle stream_ = nullptr;
    cuda::Stream owned_;
    cuda::DeviceMemory images_[3];
    cuda::PinnedMemory staged_;
};

}  // namespace tcmoa::testing
