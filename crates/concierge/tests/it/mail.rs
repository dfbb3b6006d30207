//! Codes by mail: through `lettre` to a mail server over real TCP.

use copass_concierge::{Concierge, Config, Deps};
use copass_errors::ErrorCode;
use copass_proto::identity::SendLoginCodeRequest;
use copass_runtime::{Secret, Tasks, config::Smtp};
use copass_store::outbox::Outbox;
use copass_test_support::{TestDatabase, Wiring, eventually, master_key, memory_queue, on_every_setup};

use crate::support::{LIMIT, Stage, address, ask, code, config, fakes::Fakes, gateway, smtp::SmtpSink};

on_every_setup! {
    a_code_arrives_by_mail_and_logs_in
    a_mail_server_that_refuses_does_not_show
    only_an_address_gets_mail
}

fn with_mail(smtp: Smtp) -> Config {
    Config {
        smtp,
        accept_dev_code: false,
        ..config()
    }
}

async fn send(stage: &Stage, email: &str) -> Result<(), copass_errors::Error> {
    let request = SendLoginCodeRequest {
        email: email.to_owned(),
    };
    ask(stage.identity().send_login_code(gateway().request(request)))
        .await
        .map(|_| ())
}

async fn a_code_arrives_by_mail_and_logs_in(database: TestDatabase, wiring: Wiring) {
    let sink = SmtpSink::start("250 ok").await;
    let stage = Stage::with(database, wiring, with_mail(sink.config())).await;
    let email = address();
    send(&stage, &email).await.unwrap();
    eventually(LIMIT, || async { sink.letters().len() == 1 }).await;
    let letter = sink.letters().remove(0);
    assert!(letter.from.contains("<no-reply@copass.test>"), "{letter:?}");
    assert!(letter.to.contains(&format!("<{email}>")), "{letter:?}");
    assert!(letter.text.contains("Subject: Your Copass login code"), "{letter:?}");
    let person = stage.log_in(&email, &letter.code()).await.unwrap();
    assert_eq!(person.email, email);
    assert_eq!(
        code(stage.log_in(&email, &letter.code()).await),
        Some(ErrorCode::Unauthorized)
    );
}

async fn a_mail_server_that_refuses_does_not_show(database: TestDatabase, wiring: Wiring) {
    let sink = SmtpSink::start("550 no such person").await;
    let stage = Stage::with(database, wiring, with_mail(sink.config())).await;
    send(&stage, &address()).await.unwrap();
    eventually(LIMIT, || async { sink.recipients() == 1 }).await;
    // A server that is not there at all: the answer is the same.
    let nowhere = Smtp {
        url: Some(Secret::new("smtp://127.0.0.1:1")),
        ..sink.config()
    };
    let cut_off = stage.replica(with_mail(nowhere)).await;
    send(&cut_off, &address()).await.unwrap();
    assert_eq!(sink.letters(), []);
}

async fn only_an_address_gets_mail(database: TestDatabase, wiring: Wiring) {
    let sink = SmtpSink::start("250 ok").await;
    let stage = Stage::with(database, wiring, with_mail(sink.config())).await;
    for email in ["x<victim@example.com>", "a@b..c", "a,b@example.com", "a\"b@example.com"] {
        assert_eq!(
            code(send(&stage, email).await),
            Some(ErrorCode::ValidationError),
            "{email}"
        );
    }
    assert_eq!(
        (sink.recipients(), stage.count("select count(*) from login_codes").await),
        (0, 0)
    );
}

#[tokio::test]
async fn mail_settings_that_cannot_work_are_refused_at_start() {
    let sink = SmtpSink::start("250 ok").await;
    let fakes = Fakes::default();
    for smtp in [
        Smtp {
            url: Some(Secret::new("ftp://example.com")),
            ..sink.config()
        },
        Smtp {
            from: None,
            ..sink.config()
        },
        Smtp {
            from: Some("nobody".to_owned()),
            ..sink.config()
        },
    ] {
        let deps = Deps {
            db: TestDatabase::sqlite().await.db(),
            queue: memory_queue(),
            outbox: Outbox::new("concierge"),
            master_key: master_key(),
            tasks: Tasks::new(),
            agent_runner: Wiring::Local.connect(fakes.agent_runner(), "agent-runner").await,
            trigger_dispatcher: Wiring::Local
                .connect(fakes.trigger_dispatcher(), "trigger-dispatcher")
                .await,
            ingestion: Wiring::Local.connect(fakes.ingestion(), "ingestion").await,
        };
        assert!(Concierge::create(with_mail(smtp), deps).is_err());
    }
}
