//! A mail server over real TCP, just large enough for one sender.

use std::sync::{Arc, Mutex};

use copass_runtime::{Secret, Tasks, config::Smtp, tasks::Phase};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// A mail that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
}

/// The server; clones share the letters.
#[derive(Clone)]
pub(crate) struct SmtpSink {
    letters: Arc<Mutex<Vec<Letter>>>,
    recipients: Arc<Mutex<usize>>,
    port: u16,
}

impl SmtpSink {
    /// A server that answers each recipient with the line, `250 ok` for a friendly one.
    pub(crate) async fn start(recipient_answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = Self {
            letters: Arc::default(),
            recipients: Arc::default(),
            port,
        };
        let tasks = Tasks::new();
        let server = sink.clone();
        tasks.clone().spawn(Phase::Serve, "smtp", move |_| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tasks.spawn(Phase::Serve, "smtp connection", move |_| async move {
                    // A client that hangs up in the middle is its own affair.
                    let _ = server.talk(stream, recipient_answer).await;
                });
            }
        });
        sink
    }

    pub(crate) fn config(&self) -> Smtp {
        Smtp {
            url: Some(Secret::new(format!("smtp://127.0.0.1:{}", self.port))),
            from: Some("Copass <no-reply@copass.test>".to_owned()),
        }
    }

    pub(crate) fn letters(&self) -> Vec<Letter> {
        self.letters.lock().unwrap().clone()
    }

    /// How often a recipient was named, accepted or not.
    pub(crate) fn recipients(&self) -> usize {
        *self.recipients.lock().unwrap()
    }

    async fn talk(&self, stream: TcpStream, recipient_answer: &str) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let (mut from, mut to) = (String::new(), String::new());
        write.write_all(b"220 sink\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let answer = match line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_uppercase()
                .as_str()
            {
                "EHLO" | "HELO" | "RSET" | "NOOP" => "250 sink",
                "MAIL" => {
                    from = line;
                    "250 ok"
                }
                "RCPT" => {
                    to = line;
                    *self.recipients.lock().unwrap() += 1;
                    recipient_answer
                }
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    let mut text = String::new();
                    while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                        text.push_str(&line);
                        text.push('\n');
                    }
                    let letter = Letter {
                        from: from.clone(),
                        to: to.clone(),
                        text,
                    };
                    self.letters.lock().unwrap().push(letter);
                    "250 taken"
                }
                "QUIT" => {
                    write.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "502 what",
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    }
}

impl Letter {
    /// The six digits.
    pub(crate) fn code(&self) -> String {
        let begin = self.text.find("code is ").unwrap() + "code is ".len();
        self.text[begin..].chars().take(6).collect()
    }
}
