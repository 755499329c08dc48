//! Every byte between orchestrator and edge. No IO.
