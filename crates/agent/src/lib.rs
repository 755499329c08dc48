//! Edge decisions: desired x observed -> actions. No IO.
