#![allow(clippy::unwrap_used)]

use super::*;

fn user(name: &str, password: &str) -> Given {
    Given::User {
        name: name.to_owned(),
        password: password.to_owned().into(),
    }
}

#[tokio::test]
async fn a_password_a_token_and_a_file_that_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    let password = "correct horse".to_owned().into();
    let line = make_user("anna", Role::Operator, &password).unwrap();
    assert!(!line.contains("correct"));
    fs::write(&path, format!("# people\n\n{line}\n")).unwrap();
    let users = Accounts::read(path.clone(), Kind::Users).unwrap();
    let right = || user("anna", "correct horse");
    assert!(users.known(&right()).is_none(), "not before it was tried");
    assert!(users.tried(user("anna", "correct horsf")).await.is_none());
    assert!(users.tried(user("bert", "correct horse")).await.is_none());
    let who = users.tried(right()).await.unwrap();
    assert_eq!((who.name.as_str(), who.role), ("anna", Role::Operator));
    assert_eq!(users.known(&right()), Some(who));
    assert!(users.known(&user("anna", "correct horsf")).is_none());

    // A file that cannot be used changes nothing; one that can puts out whom it does not name.
    fs::write(&path, "anna:operator:nonsense\n").unwrap();
    assert!(users.known(&right()).is_some());
    let other = make_user("bert", Role::Viewer, &password).unwrap();
    fs::write(&path, other + "\n").unwrap();
    assert!(users.known(&right()).is_none() && users.tried(right()).await.is_none());

    let (token, line) = make_token("billing", Role::Viewer).unwrap();
    assert!(!line.contains(token.expose_secret()));
    let path = folder.path().join("tokens");
    fs::write(&path, line + "\n").unwrap();
    let tokens = Accounts::read(path, Kind::Tokens).unwrap();
    assert_eq!(tokens.known(&Given::Token(token)).unwrap().name, "billing");
    let wrong = format!("{TOKEN}x").into();
    assert!(tokens.known(&Given::Token(wrong)).is_none());
}

#[test]
fn lines_that_will_not_do_are_named_without_what_stands_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    for (text, message) in [
        ("", "names nobody"),
        ("anna", "name:role:hash"),
        ("a b:viewer:x", "no name"),
        ("anna:admin:s3cret", "neither viewer nor operator"),
        ("anna:viewer:s3cret", "$argon2id$"),
        ("anna:viewer:$sha256$s3cret", "$argon2id$"),
    ] {
        fs::write(&path, text).unwrap();
        let error = check_file(&path, Kind::Users).unwrap_err().to_string();
        assert!(
            error.contains(message) && !error.contains("s3cret"),
            "{text}: {error}"
        );
    }
    let line = make_token("x", Role::Viewer).unwrap().1;
    fs::write(&path, format!("{line}\n{line}\n")).unwrap();
    let error = check_file(&path, Kind::Tokens).unwrap_err().to_string();
    assert!(error.contains(":2: `x` stands there twice"), "{error}");
}
