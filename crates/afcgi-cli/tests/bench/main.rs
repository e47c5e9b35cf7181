//! `afcgi bench` as a process: what it counts, what it finds wrong, what it shows, and how it ends.

mod counts;
mod hostile;
mod rig;
mod shown;
