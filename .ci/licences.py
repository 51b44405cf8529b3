"""Every dependency's licence must be one that may be shipped with an Apache-2.0 program.

Reads `cargo metadata`, so it sees what Cargo.lock pins. A licence that is not on the list, or a crate that
names none, fails.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",  # webpki-roots: a list of certificates
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",  # file by file: nothing of ours is touched
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def allowed(expression: str) -> bool:
    """SPDX: `OR` lets us choose, `AND` binds us to both. `/` is an old spelling of `OR`."""
    expression = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)
    position = 0

    def term() -> bool:
        nonlocal position
        if tokens[position] == "(":
            position += 1
            value = either()
            position += 1
            return value
        name = tokens[position]
        position += 1
        if position < len(tokens) and tokens[position] == "WITH":
            name += " WITH " + tokens[position + 1]
            position += 2
        return name in ALLOWED

    def both() -> bool:
        nonlocal position
        value = term()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            value = term() and value
        return value

    def either() -> bool:
        nonlocal position
        value = both()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            value = both() or value
        return value

    return either()


def main() -> int:
    metadata = json.loads(
        subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"])
    )
    foreign = [package for package in metadata["packages"] if package["source"]]
    bad = [
        f"{package['name']} {package['version']}: {package['license'] or 'no licence named'}"
        for package in foreign
        if not (package["license"] and allowed(package["license"]))
    ]
    for line in bad:
        print(line, file=sys.stderr)
    print(f"licences: {len(foreign)} dependencies, {len(bad)} not allowed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
