//! The page of `afcgi demo` in a browser: what holds of it whoever serves it.

use std::path::Path;

use crate::browser::Browser;

/// A number that the page shows.
pub fn shown(name: &str) -> String {
    format!("Number(document.querySelector('[data-n={name}]').textContent.replace(',', ''))")
}

async fn keep(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop");
    std::fs::create_dir_all(&folder).expect("target/interop");
    std::fs::write(folder.join(name), browser.screenshot().await).expect(name);
}

async fn assert_no_errors(browser: &Browser) {
    let log = browser.console().await;
    let entries = log.as_array().expect("a list");
    let errors = entries.iter().any(|entry| entry["level"] == "SEVERE");
    assert!(!errors, "{log}");
}

/// The page is connected to its application.
pub const LIVE: &str = "return document.getElementById('state').textContent === 'live'";

/// Opens the page.
pub async fn open(url: &str) -> Browser {
    let browser = Browser::start().await;
    browser.open(url).await;
    browser.wait(LIVE).await;
    browser
}

/// Everything that somebody can do with the page, on a gateway that multiplexes. Its screenshots, named after `picture`, are left in
/// `target/interop`.
pub async fn the_page(url: &str, picture: &str) {
    let browser = open(url).await;
    let (active, connections) = (shown("active"), shown("connections"));
    let clocks = shown("clocks");

    browser
        .run("document.querySelector('[data-open=\"100\"]').click()")
        .await;
    browser
        .wait(&format!(
            "return {clocks} === 100 && {active} > 100 && {connections} === 1"
        ))
        .await;
    // It tells what became of it, not what was once begun.
    let said =
        |words: &str| format!("return document.getElementById('said').textContent === '{words}'");
    browser
        .wait(&said("This page holds 100 requests open."))
        .await;
    // By keyboard, ten times as many.
    browser.press("3").await;
    browser
        .wait(&format!(
            "return {clocks} === 1100 && {active} > 1100 && {connections} === 1"
        ))
        .await;
    browser
        .wait(&said("This page holds 1,100 requests open."))
        .await;
    // They are alive: each gets an event every second.
    let rate = "Number(document.getElementById('rate').textContent.replace(',', ''))";
    browser.wait(&format!("return {rate} > 800")).await;

    let times = |list: &str| format!("{list}.filter(point => point[1] !== null).length");
    let enough = format!(
        "return {} > 20 && {} > 20",
        times("echoes"),
        times("fetches")
    );
    browser.wait(&enough).await;
    browser.press("s").await;
    let started = format!(
        "return {} === 1 && document.getElementById('progress').value > 1e6",
        shown("downloads")
    );
    browser.wait(&started).await;
    // It is held back: what the application was let to send stays near what was read.
    let handed = browser.run("return now.handed").await;
    assert!(
        handed.as_u64().is_some_and(|bytes| bytes < 100_000_000),
        "{handed}"
    );
    let compared = "return /beside it$/.test(document.getElementById('compared').textContent)";
    browser.wait(compared).await;
    let medians = "return [true, false].map(slow => median(sorted(fetches.filter(point => point[2] === slow))))";
    let medians = browser.run(medians).await;
    assert!(
        medians[0].as_f64().is_some_and(|ms| ms < 1000.0),
        "{medians}"
    );

    browser
        .run("document.getElementById('name').value = 'Ada'; document.getElementById('text').value = 'Hello there'; document.querySelector('#talk button').click()")
        .await;
    browser
        .wait("return document.getElementById('log').textContent.includes('Hello there')")
        .await;
    browser
        .wait("return /^Last minute/.test(document.getElementById('trips').textContent)")
        .await;
    browser
        .wait("return /^\\d\\d:\\d\\d:\\d\\d$/.test(document.getElementById('clock').textContent)")
        .await;

    browser
        .run("document.activeElement.blur(); scrollTo(0, 0)")
        .await;
    browser.resize(1280, 1640).await;
    keep(&browser, &format!("{picture}.png")).await;
    browser.prefer("prefers-color-scheme", "dark").await;
    keep(&browser, &format!("{picture}-dark.png")).await;
    browser.prefer("prefers-color-scheme", "light").await;
    for width in [320, 900, 390] {
        browser.resize(width, 3000).await;
        let narrow = "return document.documentElement.scrollWidth <= innerWidth";
        browser.wait(narrow).await;
    }
    keep(&browser, &format!("{picture}-narrow.png")).await;
    browser.resize(1280, 900).await;

    browser.run("document.getElementById('slow').click()").await;
    browser
        .wait(&format!(
            "return {} === 0 && /stopped/.test(document.getElementById('slowed').textContent)",
            shown("downloads")
        ))
        .await;
    browser.press("0").await;
    browser
        .wait(&format!("return {clocks} === 0 && {active} < 10"))
        .await;
    browser
        .wait(&said("All requests that this page asked for are closed."))
        .await;
    assert_no_errors(&browser).await;
}

/// What a page has asked for ends with it.
pub async fn a_page_that_leaves(url: &str) {
    let (one, other) = tokio::join!(open(url), open(url));
    one.press("2").await;
    let clocks = shown("clocks");
    other.wait(&format!("return {clocks} === 100")).await;
    one.open("about:blank").await;
    other.wait(&format!("return {clocks} === 0")).await;
}

/// Opens the page and a hundred requests and a slow download from it, which last.
pub async fn with_open_requests(url: &str) -> Browser {
    let browser = open(url).await;
    browser.press("2s").await;
    let open = format!(
        "return {} === 100 && {} === 1",
        shown("clocks"),
        shown("downloads")
    );
    browser.wait(&open).await;
    browser
}

/// The page tells that its application is gone.
pub const GONE: &str = "return document.getElementById('state').textContent === 'reconnecting'";
