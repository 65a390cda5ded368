// Which frame of y goes with a frame of x.
#pragma once

#include "feed.hpp"

namespace tcmoa::gst {

enum class Match {
    kFound,  // `picture` is the partner
    kNone,   // no frame of y is near in time: y is lost
    kMore    // a frame of y that is yet to come may be the better one
};

struct Partner {
    Match match;
    PicturePtr picture;
};

// Time from a frame within which its partner must begin: one and a half frames of the slower source, and 20 ms.
GstClockTime tolerance(const Feed &x, const Feed &y);

// The frame of y that covers most of the time of `frame`, the earlier one of two that cover as much; where none covers
// any of it, the nearest one within the tolerance. Takes those frames of y from its queue that will not be needed any
// more. `patient`: wait for frames that are not there yet.
Partner partner_of(const Picture &frame, const Feed &x, Feed &y, bool patient);

}  // namespace tcmoa::gst
