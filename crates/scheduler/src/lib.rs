//! Orchestrator decisions: evaluate, reconcile, place. No IO.
