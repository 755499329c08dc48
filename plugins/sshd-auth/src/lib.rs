//! Turns OpenSSH log lines into JSON events: one line, one event.
//!
//! ```text
//! Dec 10 07:13:56 LabSZ sshd[24227]: message repeated 5 times: [ Failed password for root from 5.36.59.76 port 42393 ssh2]
//! {"time":"Dec 10 07:13:56","host":"LabSZ","pid":24227,"event":"failed-password","user":"root","ip":"5.36.59.76","port":42393,"repeat":5}
//! ```
//!
//! All eight fields are always there; what a line does not say is null. The time stays as written: syslog names no year.
//! `ip` is an address, never a host name. A line that is no syslog line, comes from another program, or says what this
//! plugin does not know, is rejected with a reason; nothing is guessed. The events are listed in [`message`].

use sluice_sdk::json::ObjectWriter;
use sluice_sdk::{Decision, Emit, NoConfig, Record, RecordStage, stage};

pub mod header;
pub mod message;

use header::Header;
use message::Event;

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct SshdAuth;

impl RecordStage for SshdAuth {
    type Config = NoConfig;

    fn configure(_config: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }

    fn record(&mut self, record: Record<'_>, emit: &mut Emit) -> Decision {
        match read(record) {
            Ok((header, event)) => {
                write(&header, &event, emit);
                Decision::Emitted
            }
            Err(reason) => Decision::Reject(reason),
        }
    }
}

fn read(record: Record<'_>) -> Result<(Header<'_>, Event<'_>), String> {
    let line = record
        .text()
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    let (header, text) = header::read(line)?;
    let event = message::read(text).ok_or_else(|| format!("unknown message: {text}"))?;
    Ok((header, event))
}

fn write(header: &Header<'_>, event: &Event<'_>, emit: &mut Emit) {
    let mut record = emit.start();
    let mut object = ObjectWriter::new(&mut record);
    object.text("time", header.time);
    object.text("host", header.host);
    object.integer("pid", u64::from(header.pid));
    object.text("event", event.name);
    object.text("user", event.user);
    object.text("ip", event.ip);
    object.integer("port", event.port.map(u64::from));
    object.integer("repeat", u64::from(event.repeat));
    object.finish();
    record.finish();
}

stage!(SshdAuth);

#[cfg(test)]
mod tests;
