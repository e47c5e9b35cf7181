//! `afcgi demo` behind nginx: the page in a browser, with the module and without it.

use std::path::Path;

use afcgi_interop::app::App;
use afcgi_interop::browser::Browser;
use afcgi_interop::wait::free_port;
use afcgi_nginx_tests::nginx::Nginx;

/// An nginx that has the demonstration at `/demo/`, with a directive for that, and its application.
async fn rig(directive: &str) -> (Nginx, App) {
    let app = free_port();
    let http = format!(
        "server {{ listen LISTEN; location /demo/ {{ {directive} fastcgi_pass 127.0.0.1:{app}; }} }}"
    );
    let nginx = Nginx::start(1, &http).await;
    let app = App::demo(app, &nginx.url("/demo/")).await;
    (nginx, app)
}

/// A number that the page shows.
fn shown(name: &str) -> String {
    format!("Number(document.querySelector('[data-n={name}]').textContent.replace(',', ''))")
}

async fn keep(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interop");
    std::fs::create_dir_all(&folder).expect("target/interop");
    std::fs::write(folder.join(name), browser.screenshot().await).expect(name);
}

async fn assert_no_errors(browser: &Browser) {
    let log = browser.console().await;
    let entries = log.as_array().expect("a list");
    let errors = entries.iter().any(|entry| entry["level"] == "SEVERE");
    assert!(!errors, "{log}");
}

const LIVE: &str = "return document.getElementById('state').textContent === 'live'";

#[tokio::test]
async fn the_page_behind_the_module() {
    let (nginx, _app) = rig("fastcgi_multiplex on;").await;
    let browser = Browser::start().await;
    browser.open(&nginx.url("/demo/")).await;
    browser.wait(LIVE).await;
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
    // By keyboard, ten times as many.
    browser.press("3").await;
    browser
        .wait(&format!(
            "return {clocks} === 1100 && {active} > 1100 && {connections} === 1"
        ))
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
    keep(&browser, "demo.png").await;
    browser.prefer("prefers-color-scheme", "dark").await;
    keep(&browser, "demo-dark.png").await;
    browser.prefer("prefers-color-scheme", "light").await;
    for width in [320, 900, 390] {
        browser.resize(width, 3000).await;
        let narrow = "return document.documentElement.scrollWidth <= innerWidth";
        browser.wait(narrow).await;
    }
    keep(&browser, "demo-narrow.png").await;
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
    assert_no_errors(&browser).await;
}

/// What a page has asked for ends with it.
#[tokio::test]
async fn a_page_that_leaves() {
    let (nginx, _app) = rig("fastcgi_multiplex on;").await;
    let (one, other) = tokio::join!(Browser::start(), Browser::start());
    for browser in [&one, &other] {
        browser.open(&nginx.url("/demo/")).await;
        browser.wait(LIVE).await;
    }
    one.press("2").await;
    let clocks = shown("clocks");
    other.wait(&format!("return {clocks} === 100")).await;
    one.open("about:blank").await;
    other.wait(&format!("return {clocks} === 0")).await;
}

/// Whatever is open, the application ends in order and in time.
#[tokio::test]
async fn it_ends_while_requests_are_open() {
    let (nginx, mut app) = rig("fastcgi_multiplex on;").await;
    let browser = Browser::start().await;
    browser.open(&nginx.url("/demo/")).await;
    browser.wait(LIVE).await;
    browser.press("2s").await;
    let open = format!(
        "return {} === 100 && {} === 1",
        shown("clocks"),
        shown("downloads")
    );
    browser.wait(&open).await;
    assert!(app.process.stop().success());
    browser
        .wait("return document.getElementById('state').textContent === 'reconnecting'")
        .await;
}

/// Without the module each request has a connection, and the page says so; WebSockets do not get through, and the page says that.
#[tokio::test]
async fn the_page_without_multiplexing() {
    let (nginx, _app) = rig("fastcgi_multiplex off;").await;
    let browser = Browser::start().await;
    browser.open(&nginx.url("/demo/")).await;
    browser.wait(LIVE).await;
    browser.press("2").await;
    let (clocks, connections) = (shown("clocks"), shown("connections"));
    browser
        .wait(&format!("return {clocks} === 100 && {connections} > 100"))
        .await;
    browser
        .wait("return /opens no WebSocket/.test(document.getElementById('trips').textContent)")
        .await;
    browser.press("0").await;
    browser
        .wait(&format!("return {clocks} === 0 && {connections} < 10"))
        .await;
}
