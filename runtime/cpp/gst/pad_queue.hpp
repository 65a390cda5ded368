// The frames of one sink pad: the first in its queue, and the last one that was taken from the queue.
#pragma once

#include <gst/video/gstvideoaggregator.h>

#include <atomic>
#include <string>
#include <utility>

#include "timed_frame.hpp"

namespace tcmoa::gst {

// Used by the aggregating thread only, except interval() and flush().
class PadQueue {
public:
    explicit PadQueue(GstAggregatorPad *pad) : pad_(pad) {}

    // The first frame in the queue, which remains there; frames outside of the segment are skipped. NULL: the queue is
    // empty, or the frame has no timestamp, see lacks_timestamps().
    FramePtr peek();

    // Remove the first frame from the queue; unless it is a gap it becomes last().
    void pop();

    const FramePtr &last() const { return last_; }
    bool is_eos() const { return gst_aggregator_pad_is_eos(pad_) != FALSE; }
    bool lacks_timestamps() const { return lacks_timestamps_; }

    // Time from one frame to the next: of the caps, else as last measured, else 40 ms.
    GstClockTime interval() const;

    // Record whether the source is lost; returns whether that changed.
    bool set_lost(bool lost) { return std::exchange(lost_, lost) != lost; }
    bool is_lost() const { return lost_; }

    // The frame of the next output, for the signal `samples-selected`.
    void select(FramePtr frame) { selected_ = std::move(frame); }
    const FramePtr &selected() const { return selected_; }

    // Drop all frames at the next peek(). From any thread.
    void flush() { flushed_ = true; }

    // Drop all frames now, while no thread aggregates.
    void reset();

    GstVideoAggregatorPad *pad() const { return GST_VIDEO_AGGREGATOR_PAD_CAST(pad_); }

    // "sink_x" or "sink_y".
    std::string name() const { return GST_OBJECT_NAME(pad_); }

private:
    FramePtr to_frame(GstBuffer *buffer);

    GstAggregatorPad *pad_;  // owned by the element, like this object
    FramePtr first_, last_, selected_;
    std::atomic<GstClockTime> measured_interval_ = GST_CLOCK_TIME_NONE;
    bool lacks_timestamps_ = false, lost_ = false;
    std::atomic<bool> flushed_ = false;
};

}  // namespace tcmoa::gst
