//! The pool with chains made for the purpose.
