//! Every response takes the same way out, whoever made it: what is for the gateway stays there, header rules hold, and there is a
//! line in the access log.

use afcgi::{Listener, Server};
use afcgi_interop::wait::free_port;

use crate::rig::Rig;

/// Fields that are for the gateway.
const INNER: &str = "X-Accel-Expires: 5\r\nX-Accel-Buffering: no\r\nVariable-Secret: s3cret\r\nX-Own: own\r\nX-Gone: gone\r\n";

/// An application that answers a path with what its name says.
pub(crate) async fn application() -> u16 {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = afcgi::native(async move |request: afcgi::Request| {
        let path = request.params().get("REQUEST_URI").unwrap_or_default();
        let refuses = request.params().get("HTTP_X_REFUSE").is_some();
        let head = match path {
            _ if request.role() == afcgi::Role::Authorizer => match refuses {
                true => {
                    "Status: 403\r\nX-Accel-Redirect: /files/a.txt\r\nX-Sendfile: /etc/passwd\r\n"
                }
                false => "Status: 200\r\n",
            },
            b"/guarded/broken" => "no head\r\n",
            b"/guarded/redirect" => "Location: http://example.org/\r\n",
            b"/guarded/named" => "X-Accel-Redirect: /other/a.txt\r\nX-Sendfile: /etc/passwd\r\n",
            b"/guarded/file" => "X-Accel-Redirect: /files/a.txt\r\n",
            b"/guarded/hint" => {
                "Status: 103\r\nLink: </a>\r\nX-Accel-Expires: 5\r\nVariable-A: s3cret\r\nX-Gone: gone\r\n\r\nStatus: 200\r\n"
            }
            _ => "Status: 404\r\n",
        };
        request
            .stdout()
            .write(format!("{head}{INNER}\r\n").as_bytes())
            .await
    });
    tokio::spawn(Server::new().listen(listener).serve(app));
    port
}

#[tokio::test]
async fn is_the_same_for_all() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    for name in ["a.txt", "folder/index.html"] {
        std::fs::write(dir.path().join(name), "content").unwrap();
    }
    let root = dir.path().canonicalize().unwrap().display().to_string();
    let port = application().await;
    let rules =
        "set_response_headers = { X-Guard = \"on\" }\nremove_response_headers = [\"X-Gone\"]";
    let config = format!(
        "[limits]\nheader_timeout = \"60s\"\n[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n\
         [upstream.gone]\naddresses = [\"127.0.0.1:{}\"]\n\
         [[route]]\npath = \"/guarded\"\nupstream = \"a\"\nauthorizer = \"a\"\nbody = 10\n\
         sendfile = {{ \"/files/\" = \"{root}\" }}\n{rules}\n\
         [[route]]\npath = \"/plain\"\nupstream = \"a\"\n{rules}\n\
         [[route]]\npath = \"/gone\"\nupstream = \"gone\"\n{rules}\n\
         [[route]]\npath = \"/unguarded\"\nupstream = \"a\"\nauthorizer = \"gone\"\n{rules}\n\
         [[route]]\npath = \"/files\"\nroot = \"{root}\"\nstrip = true\n{rules}",
        free_port(),
    );
    let rig = Rig::config(&config).await;
    for (line, more, status) in [
        ("GET /guarded/x", "X-Refuse: 1\r\n", 403),
        ("GET /guarded/broken", "", 502),
        ("GET /guarded/redirect", "", 302),
        ("GET /guarded/named", "", 404),
        ("GET /guarded/file", "", 200),
        ("GET /guarded/hint", "", 200),
        ("GET /guarded/x", "", 404),
        ("POST /guarded/x", "Content-Length: 11\r\n", 413),
        ("GET /plain/x", "", 404),
        ("GET /gone/x", "", 502),
        ("GET /unguarded/x", "", 502),
        ("GET /files/a.txt", "", 200),
        ("GET /files/none", "", 404),
        ("GET /files/folder", "", 301),
        ("POST /files/a.txt", "", 405),
        ("GET /files/a.txt", "Range: bytes=99-\r\n", 416),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        let answer = rig.raw(request.as_bytes()).await;
        let heads = answer.to_ascii_lowercase();
        assert!(
            answer.contains(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        for inner in ["x-accel-", "x-sendfile", "variable-", "s3cret", "x-gone"] {
            assert!(!heads.contains(inner), "{request}: {inner} in {answer}");
        }
        assert_eq!(
            heads.matches("\r\nx-guard: on\r\n").count(),
            1,
            "{request}: {answer}"
        );
        rig.logs(&[&format!("\"{line} HTTP/1.1\" {status} ")]).await;
    }
    let answer = rig
        .raw(b"GET /guarded/hint HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 103 ") && answer.contains("link: </a>"),
        "{answer}"
    );
}
