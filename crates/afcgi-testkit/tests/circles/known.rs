//! Circles that there are, to be taken apart one by one.

/// The target, the module, and those in the circle. None may be added, here or there.
pub(crate) const KNOWN: &[(&str, &str, &[&str])] = &[
    (
        "afcgi",
        "crate::client",
        &[
            "body",
            "data",
            "exchange",
            "its own file",
            "mount",
            "request",
            "streams",
            "upload",
        ],
    ),
    ("afcgi", "crate::client", &["connection", "place", "pool"]),
    ("afcgi", "crate::server", &["accept", "its own file"]),
    (
        "afcgi-proto",
        "crate::app",
        &["its own file", "overflow", "request", "timers", "unended"],
    ),
    ("afcgi-proto", "crate::web", &["its own file", "request"]),
    (
        "afcgi-cli (test check)",
        "crate",
        &["connection", "handlers", "request", "server"],
    ),
    ("afcgi-nginx", "crate", &["ffi", "host"]),
    (
        "afcgi-nginx",
        "crate::ffi",
        &["module", "status", "upstream", "variables", "zone"],
    ),
];
