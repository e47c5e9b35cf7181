//! Asynchronous, multiplexing FastCGI.
