//! The cases for applications: a file for each section of the specification, then hostile peers, load, and the two extensions.

mod abort;
mod begin;
mod connections;
mod end;
mod flow_control;
mod hostile;
mod ids;
mod load;
mod management;
mod memory;
mod multiplexing;
mod pairs;
mod records;
mod roles;
mod streams;
mod upgrade;

pub(crate) use streams::noise;

use super::case::Section;
use super::probe::Probe;

/// All of them, in the order of the specification.
pub const SECTIONS: &[Section<Probe>] = &[
    section("records", "3.3 Records", records::CASES),
    section("ids", "3.3 Request ids", ids::CASES),
    section("pairs", "3.4 Name-value pairs", pairs::CASES),
    section("connections", "3.5 Closing connections", connections::CASES),
    section("management", "4 Management records", management::CASES),
    section("begin", "5.1 BEGIN_REQUEST", begin::CASES),
    section("streams", "5.3 Byte streams", streams::CASES),
    section("abort", "5.4 ABORT_REQUEST", abort::CASES),
    section("end", "5.5 END_REQUEST", end::CASES),
    section("roles", "6 Roles", roles::CASES),
    section("multiplexing", "Multiplexing", multiplexing::CASES),
    section("hostile", "Hostile peers", hostile::CASES),
    section("load", "Load and slow peers", load::CASES),
    section("memory", "Memory", memory::CASES),
    section(
        "flow-control",
        "Flow control (docs/flow-control.md)",
        flow_control::CASES,
    ),
    section("upgrade", "Upgrades (docs/upgrade.md)", upgrade::CASES),
];

const fn section(
    slug: &'static str,
    title: &'static str,
    cases: &'static [super::case::Case<Probe>],
) -> Section<Probe> {
    Section { slug, title, cases }
}
