// What arrives at one sink pad: the frame at the head of its queue and the newest one that was taken from it.
#pragma once

#include <gst/video/gstvideoaggregator.h>

#include <atomic>
#include <utility>

#include "picture.hpp"

namespace tcmoa::gst {

// Used by the aggregating thread only, except interval() and flush().
class Feed {
   public:
    explicit Feed(GstAggregatorPad *pad) : pad_(pad) {}

    // The frame at the head of the queue, which stays there; frames outside the segment are skipped. NULL: none yet.
    // A frame without a time stamp sets untimed().
    PicturePtr head();

    // Take the head from the queue; unless it is a gap it becomes last().
    void take();

    const PicturePtr &last() const { return last_; }
    bool ended() const { return gst_aggregator_pad_is_eos(pad_) != FALSE; }
    bool untimed() const { return untimed_; }

    // Time from frame to frame: by the caps, else as last measured, else that of 25 frames a second.
    GstClockTime interval() const;

    // Whether the source is lost; returns true if that is news.
    bool set_lost(bool lost) { return std::exchange(lost_, lost) != lost; }
    bool lost() const { return lost_; }

    // The frame that goes into the next output, for the signal `samples-selected`.
    void select(PicturePtr picture) { selected_ = std::move(picture); }
    const PicturePtr &selected() const { return selected_; }

    // Forget all frames. From any thread: takes effect with the next head().
    void flush() { flushed_ = true; }

    // The same, at once, while nothing runs.
    void forget();

    GstVideoAggregatorPad *pad() const { return GST_VIDEO_AGGREGATOR_PAD_CAST(pad_); }

   private:
    PicturePtr picture_of(GstBuffer *buffer);

    GstAggregatorPad *pad_;  // the element owns it, and this object
    PicturePtr head_, last_, selected_;
    std::atomic<GstClockTime> measured_ = GST_CLOCK_TIME_NONE;
    bool untimed_ = false, lost_ = false;
    std::atomic<bool> flushed_ = false;
};

}  // namespace tcmoa::gst
