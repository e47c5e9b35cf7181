//! The FastCGI protocol without IO.
