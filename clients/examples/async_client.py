"""Several pictures at once, with the client for asyncio: live progress, each answer as it is written, a stop by Ctrl-C.

    python async_client.py --prompt "Which colour dominates?" one.jpg two.jpg

It speaks gRPC; MONDRIAN_ADDRESS is where the server listens (127.0.0.1:50051).
"""

import argparse
import asyncio
import os
import sys

import mondrian


async def describe(client: mondrian.AsyncClient, photo: str, prompt: str) -> str:
    """Analyse one picture and return the text; what happens meanwhile is shown on stderr."""
    delivery = mondrian.Delivery(progress_interval_s=1.0)
    async for event in (stream := client.analyze(prompt, images=[photo], delivery=delivery)):
        match event:
            case mondrian.Progress():
                print(f"{photo}: {event.fraction:4.0%} {event.message}", file=sys.stderr)
            case mondrian.Token():
                print(f"{photo}: … {event.text}", file=sys.stderr)
            case mondrian.Accepted() | mondrian.Completed():
                pass
    return stream.text


async def main(photos: list[str], prompt: str, address: str) -> int:
    """Analyse all pictures side by side; one that fails leaves the others alone."""
    # Leaving the block, also by Ctrl-C, cancels what still runs: nothing is generated for nobody.
    async with mondrian.AsyncClient(address) as client:
        answers = [describe(client, photo, prompt) for photo in photos]
        results = await asyncio.gather(*answers, return_exceptions=True)
    failures = 0
    for photo, result in zip(photos, results, strict=True):
        match result:
            case str(text):
                print(f"{photo}: {text}")
            case mondrian.InvalidRequest() as error:
                failures += 1
                print(f"{photo}: refused: {error}", file=sys.stderr)
            case mondrian.MondrianError() as error:
                failures += 1
                later = "" if error.retry_after_s is None else f"; try again in {error.retry_after_s:.0f} s"
                print(f"{photo}: {error.code}: {error}{later}", file=sys.stderr)
            case error:
                raise error
    return 1 if failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--prompt", default="Describe this image.")
    options = parser.parse_args()
    try:
        sys.exit(
            asyncio.run(main(options.photos, options.prompt, os.environ.get("MONDRIAN_ADDRESS", "127.0.0.1:50051")))
        )
    except KeyboardInterrupt:
        sys.exit(130)
