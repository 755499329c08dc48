//! Finding and splicing fields of JSON records without a tree.
