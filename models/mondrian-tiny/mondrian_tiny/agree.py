"""Agreement: compares mlx-vlm's greedy text with PyTorch's on the exported model.

Run in `models/mondrian-tiny/`: `python -m mondrian_tiny.agree --pictures 100`.
"""

import argparse
from pathlib import Path

import torch
from transformers import SmolVLMForConditionalGeneration

from mondrian_tiny import tokenizer, wording
from mondrian_tiny.answers import QUESTIONS
from mondrian_tiny.ask import MOST_TOKENS, Asker
from mondrian_tiny.dialogues import Turn
from mondrian_tiny.facts import FAMILIES
from mondrian_tiny.light import model_pixels
from mondrian_tiny.packing import Packer
from mondrian_tiny.pictures import draw_picture
from mondrian_tiny.score import HELD_OUT_SEED
from mondrian_tiny.shape import END_ID


def main() -> None:
    """Print on how many pictures both say the same, and where they do not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(), help="model folder")
    parser.add_argument("--pictures", type=int, default=100, help="pictures, the families in turn")
    options = parser.parse_args()
    asker = Asker(options.model)
    reference = SmolVLMForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    same = 0
    for number in range(options.pictures):
        picture = draw_picture(FAMILIES[number % len(FAMILIES)], HELD_OUT_SEED, number)
        asked = wording.ASKED[QUESTIONS[number // len(FAMILIES) % len(QUESTIONS)]][0]
        mine = asker.ask([picture.image], asked)[0].text
        pixels = torch.from_numpy(model_pixels(picture.image).copy())
        theirs = torch_text(reference, options.model, pixels, asked)
        same += mine == theirs
        if mine != theirs:
            print(f"{number} {asked}\n  mlx-vlm: {mine}\n  PyTorch: {theirs}")
    print(f"the same text on {same} of {options.pictures} pictures")


@torch.no_grad()
def torch_text(model: SmolVLMForConditionalGeneration, folder: Path, pixels: torch.Tensor, asked: str) -> str:
    """Answer greedily with PyTorch in float32."""
    vocabulary = tokenizer.load(folder)
    packer = Packer(vocabulary)
    question, _ = packer.turn(Turn(asked=asked, said=[]))
    prompt = [*packer.prefix(image=True), *question[:-1]]
    scaled = (pixels.permute(2, 0, 1).float() / 127.5 - 1)[None, None]
    output = model(input_ids=torch.tensor([prompt]), pixel_values=scaled, use_cache=True)
    said: list[int] = []
    while len(said) < MOST_TOKENS:
        token = int(output.logits[0, -1].argmax())
        if token == END_ID:
            break
        said.append(token)
        output = model(input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
    return vocabulary.decode(said)


if __name__ == "__main__":
    main()
