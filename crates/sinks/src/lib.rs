//! Where events are delivered: one file a sink, one shared delivery loop
