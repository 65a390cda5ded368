// Events and queries that the element handles itself: virtual functions of GstAggregator.
#pragma once

#include "state.hpp"

namespace tcmoa::gst {

gboolean sink_event(GstAggregator *aggregator, GstAggregatorPad *pad, GstEvent *event);
gboolean sink_query(GstAggregator *aggregator, GstAggregatorPad *pad, GstQuery *query);
gboolean src_event(GstAggregator *aggregator, GstEvent *event);
gboolean src_query(GstAggregator *aggregator, GstQuery *query);

}  // namespace tcmoa::gst
