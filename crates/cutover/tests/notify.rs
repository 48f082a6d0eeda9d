//! The room `notify` against real receivers and programs.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::notify::{Endpoint, Error, Message, Program, Way, tell};
use cutover::store::Identity;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(30);
/// Names the test that another run of this program is to be.
const CHILD: &str = "CUTOVER_TEST_TLS_CHILD";

fn message() -> Message {
    Message { id: "0190-run:ended".into(), sent: 1_700_000_000, body: r#"{"text":"web: done"}"#.into() }
}

fn webhook(address: &str) -> Way {
    Way::Webhook { endpoint: Endpoint::parse(address).unwrap(), secret: None }
}

/// Reads one request to the end of its body, and answers it.
async fn answered(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
        });
        if read == 0 || body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    text
}

#[tokio::test]
async fn a_message_is_posted_with_its_id_its_time_and_its_signature() {
    let ground = tempfile::tempdir().unwrap();
    let secret = ground.path().join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
    let way = Way::Webhook { endpoint: Endpoint::parse(&address).unwrap(), secret: Some(secret.clone()) };
    let receiver = async {
        let (stream, _) = listener.accept().await.unwrap();
        answered(stream, "HTTP/1.1 204 No Content\r\n\r\n").await
    };
    let message = Message {
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
        sent: 1_614_265_330,
        body: r#"{"test": 2432232314}"#.into(),
    };
    let (got, told) = tokio::join!(receiver, tell(&way, &message, LIMIT));
    assert_eq!(told.unwrap(), "204");
    assert!(got.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{got}");
    for line in [
        "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n",
        "webhook-timestamp: 1614265330\r\n",
        "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n",
        "content-type: application/json\r\n",
    ] {
        assert!(got.contains(line), "{line} in {got}");
    }
    assert!(got.ends_with("\r\n\r\n{\"test\": 2432232314}"), "{got}");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(tell(&way, &message, LIMIT).await, Err(Error::Open { .. })), "nothing is sent unsigned");
}

#[tokio::test]
async fn only_a_2xx_takes_a_message_and_a_redirect_is_not_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = webhook(&format!("http://{}/", listener.local_addr().unwrap()));
    for (answer, word) in [
        ("HTTP/1.1 500 No\r\ncontent-length: 10\r\n\r\nnot\n today", "status 500: not today"),
        ("HTTP/1.1 302 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "status 302"),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", "status 410"),
        ("SMTP ready\r\n", "no HTTP answer"),
        ("", "no HTTP answer"),
    ] {
        let message = message();
        let receiver = async {
            let (stream, _) = listener.accept().await.unwrap();
            answered(stream, answer).await
        };
        let (_, told) = tokio::join!(receiver, tell(&way, &message, LIMIT));
        let error = told.expect_err(answer).to_string();
        assert!(error.contains(word), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn who_does_not_answer_or_is_not_there_has_not_taken_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Taken by the kernel, answered by nobody.
    let silent = tell(&webhook(&format!("http://{address}/")), &message(), Duration::from_millis(100)).await;
    assert!(matches!(silent, Err(Error::Unanswered { .. })), "{silent:?}");
    drop(listener);
    let gone = tell(&webhook(&format!("http://{address}/")), &message(), LIMIT).await;
    assert!(matches!(gone, Err(Error::Connect { .. })), "{gone:?}");
}

fn program(script: &str, env: &[(&str, &str)]) -> Way {
    Way::Program(Program {
        words: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        identity: None,
    })
}

#[tokio::test]
async fn a_program_gets_the_message_and_nothing_else_of_the_daemons() {
    let ground = tempfile::tempdir().unwrap();
    let out = ground.path().join("out");
    let script = "cat > \"$OUT\"; echo >> \"$OUT\"; /usr/bin/env >> \"$OUT\"; pwd >> \"$OUT\"";
    let way = program(script, &[("OUT", out.to_str().unwrap()), ("PATH", "/usr/bin:/bin")]);
    assert_eq!(tell(&way, &message(), LIMIT).await.unwrap(), "exit code 0");
    let text = std::fs::read_to_string(&out).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(r#"{"text":"web: done"}"#));
    let names: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once('=')).collect();
    let own: Vec<&str> =
        names.keys().copied().filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name)).collect();
    assert_eq!(own, ["CUTOVER_NOTICE_ID", "OUT", "PATH"], "{text}");
    assert_eq!(names["CUTOVER_NOTICE_ID"], "0190-run:ended");
    assert!(text.ends_with("\n/\n"), "{text}");
}

#[tokio::test]
async fn a_program_runs_as_whom_it_is_told_to() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may run something as somebody else");
        return;
    }
    let identity = Identity { uid: 65_534, gid: 65_533, groups: vec![65_533] };
    let script = "[ \"$(id -u) $(id -g) $(id -G)\" = '65534 65533 65533' ] || { id >&2; exit 1; }";
    let Way::Program(program) = program(script, &[("PATH", "/usr/bin:/bin")]) else { unreachable!() };
    let way = Way::Program(Program { identity: Some(identity), ..program });
    assert_eq!(tell(&way, &message(), LIMIT).await.unwrap(), "exit code 0");
}

#[tokio::test]
async fn a_program_that_fails_says_how_and_one_that_does_not_read_may_still_take_it() {
    let failed = tell(&program("echo no mail here >&2; exit 3", &[]), &message(), LIMIT).await;
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("exit status: 3: no mail here"), "{error}");
    let large = Message { body: "x".repeat(4 << 20), ..message() };
    assert!(tell(&program("exit 0", &[]), &large, LIMIT).await.is_ok());
    let missing =
        Way::Program(Program { words: vec!["/nowhere/notify".into()], env: BTreeMap::new(), identity: None });
    assert!(matches!(tell(&missing, &message(), LIMIT).await, Err(Error::Start { .. })));
}

#[tokio::test]
async fn a_program_that_hangs_ends_with_everything_that_it_started() {
    let ground = tempfile::tempdir().unwrap();
    let pids = ground.path().join("pids");
    let script = "sleep 600 & echo $! $$ > \"$PIDS\"; wait";
    let way = program(script, &[("PIDS", pids.to_str().unwrap()), ("PATH", "/usr/bin:/bin")]);
    let message = message();
    let hanging = tell(&way, &message, Duration::from_secs(2));
    let told = hanging.await;
    assert!(matches!(told, Err(Error::Unanswered { .. })), "{told:?}");
    let text = std::fs::read_to_string(&pids).unwrap();
    let begun = std::time::Instant::now();
    for pid in text.split_whitespace() {
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !stat().is_empty() && !stat().contains(") Z ") {
            assert!(begun.elapsed() < LIMIT, "{pid} lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A receiver behind TLS, whose authority is in a file that only whoever is told of it knows.
struct Guarded {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl Guarded {
    async fn new(authority: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(authority, issuer.pem()).unwrap();
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: Arc::new(config).into() }
    }
}

/// What another run of this program does: it posts to the address that it is given.
#[tokio::test]
async fn posting_over_tls_as_another_process() {
    let Ok(address) = std::env::var(CHILD) else { return };
    match tell(&webhook(&address), &message(), LIMIT).await {
        Ok(answer) => println!("TOLD {answer}"),
        Err(error) => println!(
            "NOT TOLD {error}: {}",
            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
        ),
    }
}

/// Which authorities are believed is a matter of the process, so each try is one of its own.
async fn posted(guarded: &Guarded, host: &str, authority: &Path) -> (Option<String>, String) {
    let address = format!("https://{host}:{}/hook", guarded.listener.local_addr().unwrap().port());
    let authority = authority.to_owned();
    let posting = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "posting_over_tls_as_another_process", "--nocapture"])
            .env(CHILD, address)
            .env("SSL_CERT_FILE", authority)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap()
    });
    let receiving = async {
        let (stream, _) = guarded.listener.accept().await.unwrap();
        let stream = guarded.acceptor.accept(stream).await.ok()?;
        Some(answered(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await)
    };
    let (got, output) = tokio::join!(receiving, posting);
    let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    let told = text.lines().find_map(|line| line.find("TOLD ").map(|_| line.to_owned()));
    (got, told.unwrap_or(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_who_proves_its_name_to_a_known_authority_gets_the_message() {
    let ground = tempfile::tempdir().unwrap();
    let (ours, other) = (ground.path().join("ours.pem"), ground.path().join("other.pem"));
    let guarded = Guarded::new(&ours).await;
    Guarded::new(&other).await;
    let (got, told) = posted(&guarded, "localhost", &ours).await;
    assert!(told.ends_with("TOLD 200") && !told.contains("NOT"), "{told}");
    assert!(got.unwrap().ends_with("{\"text\":\"web: done\"}"));
    let (got, told) = posted(&guarded, "localhost", &other).await;
    assert!(got.is_none() && told.contains("NOT TOLD greeting localhost over TLS"), "{told}");
    let (got, told) = posted(&guarded, "127.0.0.1", &ours).await;
    assert!(got.is_none() && told.contains("NOT TOLD"), "another name than the certificate's: {told}");
}
