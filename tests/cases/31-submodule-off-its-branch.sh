#!/bin/sh
# Makes $1/submodule-off-its-branch.git, whose submodule stands at a commit that its branch has left behind.
set -eu
d=$(mkdir -p "$1" && cd "$1" && pwd)
name=submodule-off-its-branch work=$(mktemp -d)
export GIT_AUTHOR_NAME=Dev GIT_AUTHOR_EMAIL=dev@example.com GIT_COMMITTER_NAME=Dev GIT_COMMITTER_EMAIL=dev@example.com
export GIT_AUTHOR_DATE='2024-05-09T12:00:00Z' GIT_COMMITTER_DATE='2024-05-09T12:00:00Z'
bare() { rm -rf "$1"; git init -q --bare --initial-branch=main "$1"; for s in allowFilter allowAnySHA1InWant; do git -C "$1" config "uploadpack.$s" true; done; }
bare "$d/$name.git"; bare "$d/$name-lib.git"
git init -q --initial-branch=main "$work/lib"; cd "$work/lib"
echo old > text; git add .; git commit -qm old; old=$(git rev-parse HEAD)
echo new > text; git commit -qam new; git push -q "$d/$name-lib.git" main
git init -q --initial-branch=main "$work/app"; cd "$work/app"
printf 'FROM scratch\nCOPY lib/text /text\n' > Dockerfile
printf '[submodule "lib"]\n\tpath = lib\n\turl = ../%s-lib.git\n' "$name" > .gitmodules
git add .; git update-index --add --cacheinfo "160000,$old,lib"
git commit -qm app; git push -q "$d/$name.git" main
rm -rf "$work"
