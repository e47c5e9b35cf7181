//! `afcgi demo` by itself, with the gateway and the application in one process: its page in a browser.

use afcgi_interop::app::App;
use afcgi_interop::demo::{self, GONE};

#[tokio::test]
async fn the_page() {
    let app = App::demo_alone().await;
    demo::the_page(&app.url("/"), "demo-alone").await;
}

#[tokio::test]
async fn a_page_that_leaves() {
    let app = App::demo_alone().await;
    demo::a_page_that_leaves(&app.url("/")).await;
}

/// Whatever is open, it ends in order and in time.
#[tokio::test]
async fn it_ends_while_requests_are_open() {
    let mut app = App::demo_alone().await;
    let browser = demo::with_open_requests(&app.url("/")).await;
    assert!(app.process.stop().success());
    browser.wait(GONE).await;
}
