//! Where requests go.

use std::rc::Rc;

use crate::conf::Settings;
use crate::host::Target;

/// Where requests go, and with which parameters. Only what agrees in all of it shares connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub target: Target,
    pub settings: Settings,
}

impl Route {
    /// Whether the two are the same.
    pub fn is(self: &Rc<Self>, other: &Rc<Self>) -> bool {
        Rc::ptr_eq(self, other) || **self == **other
    }
}
