// Fuse frames that are in GPU memory, in a CUDA stream of your own: a complete program in C++.
//
//     fuse_on_gpu BUNDLE X.raw Y.raw OUT.raw [GPU]
//
// The files hold packed 8-bit frames of the bundle's size, one after the other: x and y with the bundle's channels in
// its channel order, OUT with three channels. Here the frames are uploaded from files; in a program of yours a decoder,
// a camera driver or a kernel writes them to GPU memory, in the stream that the frame names.
//
// The bundle needs an engine for this GPU: `tcmoa build BUNDLE --flavor tensorrt`, or `--flavor rtx`.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "tcmoa.hpp"

namespace {

void check(cudaError_t result, const char *call) {
    if (result != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(result));
}

struct FreeDevice {
    void operator()(void *memory) const { (void)cudaFree(memory); }
};
struct FreeHost {
    void operator()(void *memory) const { (void)cudaFreeHost(memory); }
};
struct DestroyStream {
    void operator()(cudaStream_t stream) const { (void)cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;

Stream new_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return Stream(stream);
}

// A packed frame in GPU memory, with page-locked host memory of the same size, so that copies are asynchronous.
class DeviceFrame {
public:
    DeviceFrame(int channels, int width, int height, bool is_bgr, cudaStream_t stream)
        : stream_(stream) {
        const auto format = channels == 1 ? TCMOA_GRAY8 : is_bgr ? TCMOA_BGR8 : TCMOA_RGB8;
        bytes_ = tcmoa_frame_bytes(format, width, height);
        void *memory = nullptr;
        check(cudaMalloc(&memory, bytes_), "cudaMalloc");
        device_.reset(memory);
        check(cudaMallocHost(&memory, bytes_), "cudaMallocHost");
        host_.reset(memory);
        frame = tcmoa::frame(format, device_.get(), width, height);
        frame.memory = TCMOA_CUDA;
        frame.cuda_stream = stream;
    }

    // Read the next frame of a file and start its upload. Returns false at the end of the file.
    bool upload(std::istream &file) {
        if (!file.read(static_cast<char *>(host_.get()), static_cast<std::streamsize>(bytes_))) {
            if (file.gcount() == 0) return false;
            throw std::runtime_error("the last frame has " + std::to_string(file.gcount()) + " bytes; expected " +
                                     std::to_string(bytes_));
        }
        check(cudaMemcpyAsync(device_.get(), host_.get(), bytes_, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
        return true;
    }

    // Download the frame and write it to a file.
    void download(std::ostream &file) {
        check(cudaMemcpyAsync(host_.get(), device_.get(), bytes_, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
        check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
        file.write(static_cast<const char *>(host_.get()), static_cast<std::streamsize>(bytes_));
    }

    tcmoa_frame frame{};

private:
    std::size_t bytes_ = 0;
    cudaStream_t stream_;
    std::unique_ptr<void, FreeDevice> device_;
    std::unique_ptr<void, FreeHost> host_;
};

int run(int argc, char **argv) {
    tcmoa::Options options;
    options.backend = "tensorrt";
    options.cuda_device = argc > 5 ? std::atoi(argv[5]) : 0;
    auto fuser = tcmoa::Fuser::open(argv[1], options).value();
    const auto info = fuser.info().value();
    const bool is_bgr = std::string(info.channel_order) == "bgr";

    std::ifstream x_file(argv[2], std::ios::binary), y_file(argv[3], std::ios::binary);
    if (!x_file || !y_file) {
        throw std::runtime_error(std::string(x_file ? argv[3] : argv[2]) + ": cannot be read; expected raw frames");
    }
    // libtcmoa works in the primary context of the GPU, as CUDA's runtime library does.
    check(cudaSetDevice(options.cuda_device), "cudaSetDevice");
    const auto stream = new_stream();
    DeviceFrame x(info.x_channels, info.width, info.height, is_bgr, stream.get());
    DeviceFrame y(info.y_channels, info.width, info.height, is_bgr, stream.get());
    DeviceFrame fused(3, info.width, info.height, is_bgr, stream.get());

    std::ofstream out(argv[4], std::ios::binary);
    int num_frames = 0;
    while (x.upload(x_file) && y.upload(y_file)) {
        // Ordered after the uploads by the stream. When it returns, `fused` is complete, and `x` and `y` may change.
        fuser.fuse(x.frame, y.frame, fused.frame).value();
        fused.download(out);
        ++num_frames;
    }
    if (!out.flush()) throw std::runtime_error(std::string(argv[4]) + ": cannot be written; expected a writable path");
    std::cout << num_frames << " frames of " << info.width << 'x' << info.height << " with " << info.backend << '\n';
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        std::cerr << "usage: fuse_on_gpu BUNDLE X.raw Y.raw OUT.raw [GPU]\n";
        return 2;
    }
    try {
        return run(argc, argv);
    } catch (const std::exception &error) {
        std::cerr << "fuse_on_gpu: " << error.what() << '\n';
        return 1;
    }
}
