//! One response of an upstream, checked, cleaned, ready to be stored.
