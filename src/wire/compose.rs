//! Answers, written into buffers of the caller.
