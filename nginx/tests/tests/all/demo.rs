//! `afcgi demo` behind nginx: the page in a browser, with the module and without it.

use afcgi_interop::app::App;
use afcgi_interop::demo::{self, GONE, shown};
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

#[tokio::test]
async fn the_page_behind_the_module() {
    let (nginx, _app) = rig("fastcgi_multiplex on;").await;
    demo::the_page(&nginx.url("/demo/"), "demo").await;
}

#[tokio::test]
async fn a_page_that_leaves() {
    let (nginx, _app) = rig("fastcgi_multiplex on;").await;
    demo::a_page_that_leaves(&nginx.url("/demo/")).await;
}

/// Whatever is open, the application ends in order and in time.
#[tokio::test]
async fn it_ends_while_requests_are_open() {
    let (nginx, mut app) = rig("fastcgi_multiplex on;").await;
    let browser = demo::with_open_requests(&nginx.url("/demo/")).await;
    assert!(app.process.stop().success());
    browser.wait(GONE).await;
}

/// Without the module each request has a connection, and the page says so; WebSockets do not get through, and the page says that.
#[tokio::test]
async fn the_page_without_multiplexing() {
    let (nginx, _app) = rig("fastcgi_multiplex off;").await;
    let browser = demo::open(&nginx.url("/demo/")).await;
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
