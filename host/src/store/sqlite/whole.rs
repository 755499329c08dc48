//! Whether what is kept is what was written: digests compared with what they are of. For the start, and for a doctor's look
//! at a copy.

use rusqlite::Connection;
use sluice_ledger::{RowHash, SetDigest};
use sluice_model::Digest;

use super::rows::{bytes, wrong};

/// Things that are named.
const NAMED_MAX: usize = 3;

/// Every way in which the store is not what was written; empty when it is whole.
pub(crate) fn damages(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut damages = rows(connection)?;
    damages.extend(specs(connection)?);
    Ok(damages)
}

/// Compares every node's digest with its rows: how a flipped bit is noticed.
fn rows(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut nodes =
        connection.prepare("SELECT id, name, desired_digest FROM node ORDER BY name")?;
    let mut bodies = connection.prepare("SELECT body FROM execution WHERE node = ?1")?;
    let mut damages = Vec::new();
    let mut rows = nodes.query([])?;
    while let Some(row) = rows.next()? {
        let id: Vec<u8> = row.get(0)?;
        let desired = bytes(row, 2, "a digest", SetDigest::from_slice)?;
        let mut digest = SetDigest::EMPTY;
        let mut bodies = bodies.query([id])?;
        while let Some(body) = bodies.next()? {
            digest = digest.with(RowHash::of(body.get_ref(0)?.as_blob()?));
        }
        if digest != desired {
            let name: String = row.get(1)?;
            damages.push(format!(
                "the assignments of node {name} differ from their digest"
            ));
        }
    }
    Ok(damages)
}

/// Compares every spec with its digest: an edge would refuse a text that is not what its row names.
fn specs(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut specs = connection.prepare("SELECT digest, bytes FROM spec")?;
    let (mut all, mut damaged) = (0_u64, Vec::new());
    let mut rows = specs.query([])?;
    while let Some(row) = rows.next()? {
        all += 1;
        let digest = row.get_ref(0)?.as_blob()?;
        if Digest::of(row.get_ref(1)?.as_blob()?).as_bytes()[..] != *digest {
            damaged.push(digest.to_vec());
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    let mut named = Vec::new();
    let mut users = connection.prepare(
        "SELECT job.name, job_version.version FROM job_version JOIN job ON job.id = job_version.job
         WHERE job_version.spec = ?1 ORDER BY job.name, job_version.version",
    )?;
    for digest in &damaged {
        let mut rows = users.query([digest])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let version =
                u64::try_from(row.get::<_, i64>(1)?).map_err(|_| wrong(1, "a version"))?;
            named.push(format!("{name} version {version}"));
        }
    }
    let more = named.len().saturating_sub(NAMED_MAX);
    named.truncate(NAMED_MAX);
    let whose = match (named.as_slice(), more) {
        ([], _) => String::new(),
        (named, 0) => format!(" ({})", named.join(", ")),
        (named, more) => format!(" ({} and {more} more)", named.join(", ")),
    };
    let count = damaged.len();
    Ok(Some(format!(
        "{count} of {all} kept pipelines{whose} are not what was written"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::schema::TABLES;
    use super::*;

    #[test]
    fn what_is_not_as_it_was_written_is_named() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        assert_eq!(damages(&connection).unwrap(), Vec::<String>::new());
        let keep = |text: &str, digest: Digest| {
            let row = rusqlite::params![digest.as_bytes().to_vec(), text.as_bytes()];
            connection
                .execute("INSERT INTO spec VALUES (?1, ?2)", row)
                .unwrap();
        };
        keep("whole", Digest::of(b"whole"));
        assert!(damages(&connection).unwrap().is_empty());
        let other = Digest::of(b"as it was");
        keep("as it is", other);
        assert_eq!(
            damages(&connection).unwrap(),
            ["1 of 2 kept pipelines are not what was written"]
        );
        let job = rusqlite::params![[1_u8; 16], other.as_bytes().to_vec()];
        connection
            .execute(
                "INSERT INTO job (id, name, version, spec, stopped, deleted, created_at, updated_at)
                 VALUES (?1, 'a', 5, ?2, 0, 0, 1, 1)",
                job,
            )
            .unwrap();
        for version in 1..=5 {
            let row = rusqlite::params![[1_u8; 16], version, other.as_bytes().to_vec()];
            connection
                .execute("INSERT INTO job_version (job, version, spec, created_at) VALUES (?1, ?2, ?3, 1)", row)
                .unwrap();
        }
        assert_eq!(
            damages(&connection).unwrap(),
            [
                "1 of 2 kept pipelines (a version 1, a version 2, a version 3 and 2 more) are not what was written"
            ]
        );
    }
}
