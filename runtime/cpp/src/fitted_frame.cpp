#include "fitted_frame.hpp"

#include <algorithm>

namespace tcmoa {
namespace {

std::size_t bytes_of(FrameSize size, int channels) {
    return static_cast<std::size_t>(size.height * size.width) * static_cast<std::size_t>(channels);
}

}  // namespace

void FittedFrame::start(const Settings &settings, const Source &x, const Source &y, bool resize, bool with_prompts,
                        StretchScratch &scratch) {
    settings_ = settings;
    size_ = {x.frame->height, x.frame->width};
    const FrameSize graph{settings.contract->height, settings.contract->width};
    const FrameSize covered = resize ? graph : size_;
    if (plan_.frame() != covered) {
        plan_ = TilePlan(covered, graph, settings.token, settings.window,
                         {settings.contract->grid_height, settings.contract->grid_width});
    }
    x_ = load(x, resize, pixels_x_, resized_x_, scratch);
    y_ = load(y, resize, pixels_y_, resized_y_, scratch);
    blender_.start(plan_, with_prompts ? static_cast<std::size_t>(settings.contract->num_prompts) * 2 : 0);
    const FrameSize maps = grid();
    scale.resize(static_cast<std::size_t>(maps.height * maps.width));
    shift.resize(scale.size());
}

// The source as a tensor of its own size, or of the graph's size with `resize`.
ImageView FittedFrame::load(const Source &source, bool resize, std::vector<std::uint8_t> &pixels,
                            std::vector<std::uint8_t> &resized, StretchScratch &scratch) {
    const auto &frame = *source.frame;
    ImageView view{nullptr, frame.strides[0], {frame.height, frame.width}, source.channels};
    if (source.borrowed) {
        view.pixels = static_cast<const std::uint8_t *>(frame.planes[0]);
    } else {
        pixels.resize(bytes_of(view.size, source.channels));
        frame_to_tensor(frame, pixels, source.channels, settings_.bgr, settings_.percentiles, scratch);
        view.pixels = pixels.data();
        view.pitch = static_cast<std::size_t>(view.size.width) * static_cast<std::size_t>(source.channels);
    }
    const FrameSize graph = plan_.tile();
    if (!resize || view.size == graph) return view;
    resized.resize(bytes_of(graph, source.channels));
    resize_image(view, graph, resized.data(), resize_scratch_);
    return {resized.data(), static_cast<std::size_t>(graph.width) * static_cast<std::size_t>(source.channels), graph,
            source.channels};
}

void FittedFrame::fill(const HostTensors &tensors) {
    const auto batch = static_cast<std::size_t>(settings_.contract->batch);
    const auto part = [](const auto &tensor, std::size_t count, std::size_t i) {
        return tensor.subspan(i * (tensor.size() / count)).data();
    };
    for (std::size_t i = 0; i < batch; ++i) {
        const std::size_t tile = std::min(blender_.added() + i, plan_.count() - 1);
        plan_.cut(x_, tile, part(tensors.x, batch, i));
        plan_.cut(y_, tile, part(tensors.y, batch, i));
        if (!settings_.contract->with_control) continue;
        plan_.cut_map(scale.data(), tile, part(tensors.scale, batch, i));
        plan_.cut_map(shift.data(), tile, part(tensors.shift, batch, i));
    }
}

void FittedFrame::take(const HostTensors &tensors) {
    const auto batch = static_cast<std::size_t>(settings_.contract->batch);
    for (std::size_t i = 0; i < batch && !is_done(); ++i) {
        const float *prompts =
            tensors.prompt.empty() ? nullptr : tensors.prompt.subspan(i * (tensors.prompt.size() / batch)).data();
        blender_.add(tensors.fused.subspan(i * (tensors.fused.size() / batch)).data(), prompts);
    }
}

void FittedFrame::write(const tcmoa_frame &fused) {
    const FrameSize covered = plan_.frame();
    const std::size_t bytes = bytes_of(covered, 3);
    if (covered == size_) return tensor_to_frame({blender_.joined(), bytes}, settings_.bgr, fused);
    enlarged_.resize(bytes_of(size_, 3));
    const ImageView view{blender_.joined(), static_cast<std::size_t>(covered.width) * 3, covered, 3};
    resize_image(view, size_, enlarged_.data(), resize_scratch_);
    tensor_to_frame(enlarged_, settings_.bgr, fused);
}

}  // namespace tcmoa
