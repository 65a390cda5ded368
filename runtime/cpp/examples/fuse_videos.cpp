// Fuse two videos with OpenCV: reads both, scales them to the bundle's size, writes one; the next pair is read while
// the network works on the last.
//
//     fuse_videos BUNDLE VISIBLE INFRARED OUT.avi
#include <cstdint>
#include <iostream>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <optional>

#include "tcmoa.hpp"

namespace {

int complain(const tcmoa::Failure &failure) {
    std::cerr << "fuse_videos: " << failure.message << '\n';
    return 1;
}

// OpenCV's frames are BGR, or one channel; rows may have gaps.
tcmoa_frame as_frame(cv::Mat &image) {
    auto made = tcmoa::frame(image.channels() == 1 ? TCMOA_GRAY8 : TCMOA_BGR8, image.data, image.cols, image.rows);
    made.strides[0] = image.step[0];
    return made;
}

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
    if (!fuser) return complain(fuser.error());
    const auto info = fuser->info().value();
    const cv::Size size(info.width, info.height);

    cv::VideoCapture visible(argv[2]), infrared(argv[3]);
    if (!visible.isOpened() || !infrared.isOpened()) {
        std::cerr << "fuse_videos: " << (visible.isOpened() ? argv[3] : argv[2]) << ": not a readable video\n";
        return 1;
    }
    const double rate = visible.get(cv::CAP_PROP_FPS);
    cv::VideoWriter writer(argv[4], cv::VideoWriter::fourcc('M', 'J', 'P', 'G'), rate > 0 ? rate : 25, size);
    if (!writer.isOpened()) {
        std::cerr << "fuse_videos: " << argv[4] << ": cannot be written\n";
        return 1;
    }

    cv::Mat x, y, fused(size, CV_8UC3);
    std::optional<std::uint64_t> last;
    int frames = 0;
    const auto write_last = [&]() -> tcmoa::Status {
        if (!last) return tcmoa::Done{};
        auto done = fuser->wait(*last, as_frame(fused));
        if (done) writer.write(fused), ++frames;
        return done;
    };
    while (read(visible, size, x) && read(infrared, size, y)) {
        const auto ticket = fuser->submit(as_frame(x), as_frame(y));  // with the default of two slots there is room
        if (!ticket) return complain(ticket.error());
        if (const auto done = write_last(); !done) return complain(done.error());
        last = *ticket;
    }
    if (const auto done = write_last(); !done) return complain(done.error());
    std::cout << frames << " frames of " << size.width << 'x' << size.height << ", by " << info.backend << '\n';
}
