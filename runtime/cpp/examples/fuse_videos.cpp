// Fuse two videos with OpenCV: frames are scaled to the bundle's frame size, and the next pair is read while the
// network fuses the last one.
//
//     fuse_videos BUNDLE VISIBLE INFRARED OUT.avi
#include <cstdint>
#include <iostream>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <optional>

#include "tcmoa.hpp"

namespace {

int print_error(const tcmoa::Failure &failure) {
    std::cerr << "fuse_videos: " << failure.message << '\n';
    return 1;
}

// Describe a BGR or one-channel image of OpenCV, whose rows may have gaps.
tcmoa_frame to_frame(cv::Mat &image) {
    auto frame = tcmoa::frame(image.channels() == 1 ? TCMOA_GRAY8 : TCMOA_BGR8, image.data, image.cols, image.rows);
    frame.strides[0] = image.step[0];
    return frame;
}

// Returns false at the end of the video.
bool read(cv::VideoCapture &video, cv::Size size, cv::Mat &image) {
    cv::Mat raw;
    if (!video.read(raw)) return false;
    cv::resize(raw, image, size, 0, 0, raw.cols > size.width ? cv::INTER_AREA : cv::INTER_LINEAR);
    return true;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 5) {
        std::cerr << "usage: fuse_videos BUNDLE VISIBLE INFRARED OUT.avi\n";
        return 2;
    }
    auto fuser = tcmoa::Fuser::open(argv[1]);
    if (!fuser) return print_error(fuser.error());
    const auto info = fuser->info().value();
    const cv::Size size(info.width, info.height);

    cv::VideoCapture visible(argv[2]), infrared(argv[3]);
    if (!visible.isOpened() || !infrared.isOpened()) {
        const char *path = visible.isOpened() ? argv[3] : argv[2];
        std::cerr << "fuse_videos: " << path << ": cannot be read; expected a video\n";
        return 1;
    }
    const double rate = visible.get(cv::CAP_PROP_FPS);
    cv::VideoWriter writer(argv[4], cv::VideoWriter::fourcc('M', 'J', 'P', 'G'), rate > 0 ? rate : 25, size);
    if (!writer.isOpened()) {
        std::cerr << "fuse_videos: " << argv[4] << ": cannot be written; expected a writable path\n";
        return 1;
    }

    cv::Mat x, y, fused(size, CV_8UC3);
    std::optional<std::uint64_t> last;
    int num_frames = 0;
    const auto write_last = [&]() -> tcmoa::Status {
        if (!last) return tcmoa::Success{};
        auto status = fuser->wait(*last, to_frame(fused));
        if (status) writer.write(fused), ++num_frames;
        return status;
    };
    while (read(visible, size, x) && read(infrared, size, y)) {
        const auto ticket = fuser->submit(to_frame(x), to_frame(y));  // one of the two slots is free
        if (!ticket) return print_error(ticket.error());
        if (const auto status = write_last(); !status) return print_error(status.error());
        last = *ticket;
    }
    if (const auto status = write_last(); !status) return print_error(status.error());
    std::cout << num_frames << " frames of " << size.width << 'x' << size.height << " with " << info.backend << '\n';
}
