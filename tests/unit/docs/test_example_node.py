"""examples/node is the application of Docker's page on multi-platform images, once as files and once as a resource."""

from pathlib import Path

import yaml

EXAMPLE = Path(__file__).parents[3] / "examples" / "node"
DOCKERFILE = """\
FROM node:20-alpine
WORKDIR /app
COPY . .
RUN yarn install --production
CMD ["node", "./src/index.js"]
"""


def test_the_dockerfile_is_that_of_the_page_word_for_word() -> None:
    assert (EXAMPLE / "Dockerfile").read_text(encoding="utf-8") == DOCKERFILE


def test_the_resource_holds_exactly_the_files_of_the_folder() -> None:
    build = yaml.safe_load((EXAMPLE / "build.yaml").read_text(encoding="utf-8"))
    files = {
        str(path.relative_to(EXAMPLE)): path.read_text(encoding="utf-8")
        for path in EXAMPLE.rglob("*")
        if path.is_file() and path.name not in {"build.yaml", "README.md"}
    }
    assert build["spec"]["source"]["inline"]["files"] == files
