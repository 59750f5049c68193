//! smoke
use backstop::*;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    std::fs::create_dir_all(src.join("sub")).unwrap();
    std::fs::write(src.join("a.txt"), "hello").unwrap();
    let big: Vec<u8> = (0..5_000_000u32).flat_map(|i| (i.wrapping_mul(2654435761) >> 13).to_le_bytes()).collect();
    std::fs::write(src.join("sub/big"), &big).unwrap();
    let repo =
        Repository::create(dir.path().join("repo"), &Secret::key([1; 32]), CreateOptions::default()).await.unwrap();
    let r = repo.backup(&[src.clone()], &BackupOptions::default(), Arc::new(NoProgress)).await.unwrap();
    println!("{r:#?}");
    let s = r.snapshot.unwrap();
    let key = Key::from_path(src.join("sub/big").to_str().unwrap().trim_start_matches('/')).unwrap();
    let repo = Repository::open(dir.path().join("repo"), &Secret::key([1; 32]), OpenOptions::default()).await.unwrap();
    let mut out = Vec::new();
    repo.read_file(&s, &key).await.unwrap().read_to_end(&mut out).await.unwrap();
    assert!(out == big);
    std::fs::write(src.join("b.txt"), "hello2").unwrap();
    std::fs::remove_file(src.join("a.txt")).unwrap();
    let r = repo.backup(&[src.clone()], &BackupOptions::default(), Arc::new(NoProgress)).await.unwrap();
    println!("{r:#?}");
    println!("{:#?}", repo.stats().await.unwrap());
}
