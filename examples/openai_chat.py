"""OpenAI's own client against a gateway: stream an answer, then keep its receipt.

python examples/openai_chat.py http://127.0.0.1:8088/v1 "What is gold?" receipt.json
"""

import sys
from pathlib import Path
from typing import Any

from openai import OpenAI


def main(url: str, question: str, receipt: Path, api_key: str = "none") -> None:
    """Ask, print the tokens as they come, write the receipt."""
    with OpenAI(base_url=url, api_key=api_key) as client:
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=32,
            stream=True,
        )
        proof: dict[str, Any] = {}
        for chunk in stream:
            sys.stdout.write(chunk.choices[0].delta.content or "")
            sys.stdout.flush()
            proof = (chunk.model_extra or {}).get("assay", proof)
        data = client.get(f"/receipts/{proof['job']}", cast_to=bytes)
    receipt.write_bytes(data)
    sys.stdout.write(f"\n{proof['status']} for {proof['paid']} grain: {receipt}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
