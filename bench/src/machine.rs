//! What a record says about where it was made: enough to judge the figures by, nothing that names a machine.

use std::process::Command;

use afcgi_bench::process;

/// One line each: cores and kernel, versions of what was measured, the commit.
pub(crate) fn describe(root: &std::path::Path) -> Vec<String> {
    let cores = process::cores().map_or(0, |cores| cores.len());
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let kernel = release.split('-').next().unwrap_or_default();
    let commit = said(
        Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["describe", "--always", "--dirty"]),
    );
    vec![
        format!(
            "{cores} cores, Linux {kernel}, {}",
            uname.machine().to_string_lossy()
        ),
        [
            said(Command::new("rustc").arg("--version"))
                .split(" (")
                .next()
                .unwrap_or_default()
                .to_owned(),
            said(Command::new("go").arg("version"))
                .split_whitespace()
                .nth(2)
                .map(|go| go.replacen("go", "Go ", 1))
                .unwrap_or_default(),
            said(Command::new("nginx").arg("-v")).replacen("nginx version: ", "", 1),
            said(Command::new("haproxy").arg("-v"))
                .split('-')
                .next()
                .unwrap_or_default()
                .replacen("version ", "", 1),
        ]
        .join(", "),
        format!("commit {commit}"),
    ]
}

/// The first line of what a command prints.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return format!("no {}", command.get_program().display());
    };
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
