"""Following people through a video with BlazePose: look where they were, and search where they are missing."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .frames import Progress, picture
from .landmarks import openpose_joints
from .region import Region
from .search import Found, same_place
from .search import distinct as distinct_regions
from .tracking import NEAR, STEP_SLACK, Identities, Sighting, distinct, similarity, torso_colours

if TYPE_CHECKING:
    from .detectors import BlazePose

SOON = 24  # frames after a loss in which every frame is searched
SEARCH_EVERY = 6  # frames: for people who are to come, while others are in view
TILES_EVERY = 24  # frames: a whole round of tiles takes as long as a second of following
SPARE = 2  # candidates that are looked at beyond those who are missing


class Following:
    """One run through ``frames`` [T, H, W, 3]. It remembers where everybody was, and no pixel."""

    def __init__(self, network: "BlazePose", frames: Tensor, identities: Identities) -> None:
        self.network, self.frames, self.identities = network, frames, identities
        self.regions: list[dict[int, Region]] = [{} for _ in frames]  # where each person is next, by number
        self.joints: list[dict[int, np.ndarray]] = [{} for _ in frames]
        self.next_tiles = 0
        self.progress: Progress | None = None

    def run(self, progress: Progress | None) -> Iterator[tuple[int, int, Sighting]]:
        """(frame, number of the person, sighting) of everybody, the whole video forward and then back."""
        self.progress = progress
        for index in range(len(self.frames)):
            frame = picture(self.frames[index])
            for number, sighting in self.identities.meet(index, self._sightings(index, frame)):
                self._remember(index, number, sighting)
                yield index, number, sighting
            if progress:
                progress(index + 1)
        # Who is only half in the frame at first is easier to follow back from where the whole body was seen.
        for index in reversed(range(len(self.frames) - 1)):
            for number, sighting in self._back(index):
                self._remember(index, number, sighting)
                yield index, number, sighting

    def _remember(self, index: int, number: int, sighting: Sighting) -> None:
        self.regions[index][number] = sighting.source.next_region
        self.joints[index][number] = sighting.joints

    def _sightings(self, index: int, frame: np.ndarray) -> list[Sighting]:
        """Everybody who is where he was a frame before; and others, where somebody is missing."""
        before = self.regions[index - 1].values() if index else ()
        sightings = distinct([sighting for region in before if (sighting := self._sight(frame, region))])
        if self._must_search(index, sightings):
            sightings = distinct(sightings + self._search(index, frame, sightings))
        return sightings

    def _must_search(self, index: int, sightings: list[Sighting]) -> bool:
        if not sightings or self.identities.in_doubt(index, sightings):
            return True
        if len(sightings) >= self.identities.most:
            return False
        return index % SEARCH_EVERY == 0 or bool(self._missed(index))

    def _sight(self, frame: np.ndarray, region: Region, score: float | None = None) -> Sighting | None:
        """The person in ``region``, if there is one; ``score`` is the search's, without it the look's own."""
        look = self.network.look_at(frame, region)
        height, width = frame.shape[:2]
        if not look or not (joints := openpose_joints(look.landmarks, width, height))[:, 2].any():
            return None
        return Sighting(joints, torso_colours(frame, joints), look.presence if score is None else score, look)

    def _search(self, index: int, frame: np.ndarray, sightings: list[Sighting]) -> list[Sighting]:
        """People in ``frame`` who may not be among ``sightings``: those the detector sees, and those who were lost and
        are where they should be by now (the detector looks for faces, and does not see a back).

        Each find is looked at twice, the second time at where the landmarks then are: what is no person does not stand
        that.
        """
        known = [sighting.source.next_region for sighting in sightings]
        wanted = self.identities.most + SPARE - len(sightings)
        found = self._find(index, frame, known)
        strangers = [one for one in found if not any(same_place(one.region, region) for region in known)]
        expected = [Found(self._expected(number, index), 0.0) for number in self._missed(index)]
        people = []
        for region, score in expected + strangers[:wanted]:
            first = self.network.look_at(frame, region)
            people.append(self._sight(frame, first.next_region, score) if first else None)
        return [sighting for sighting in people if sighting]

    def _missed(self, index: int) -> list[int]:
        """Numbers of those who were lost a short while ago."""
        return [number for number in self.identities.lost(index) if index - self.identities.people[number].sure <= SOON]

    def _expected(self, number: int, index: int) -> Region:
        """Where that person should be by now."""
        person = self.identities.people[number]
        return person.source.next_region.moved(*person.travelled(index))

    def _find(self, index: int, frame: np.ndarray, known: list[Region]) -> list[Found]:
        """Where the detector sees people: in the whole frame, around places of loss, and now and then in tiles."""
        search = self.network.search
        found = search.whole(frame)
        for number in self.identities.lost(index):
            found += search.around(frame, self._expected(number, index))
        found = distinct_regions(found)
        missing = self.identities.most - len(known)
        if len(found) < missing and index >= self.next_tiles:
            self.next_tiles = index + TILES_EVERY
            # Where people are known already, others are not much smaller.
            smallest = max((region.size for region in known), default=0)
            found = distinct_regions(found + search.in_tiles(frame, missing, smallest, partial(self._check, index)))
        return found

    def _check(self, done: int) -> None:
        """Let the caller stop in the midst of a frame, ``done`` frames after the start."""
        if self.progress:
            self.progress(done)

    def _back(self, index: int) -> Iterator[tuple[int, Sighting]]:
        """Those who are in frame ``index`` where they are in the frame after it, and were not noticed."""
        after, here = self.regions[index + 1], self.joints[index]
        unnoticed = after.keys() - here.keys()
        if not unnoticed:
            return
        self._check(len(self.frames))
        frame = picture(self.frames[index])
        for number in sorted(unnoticed):
            sighting = self._sight(frame, after[number])
            then = self.joints[index + 1][number]
            if not sighting or similarity(sighting.joints, then, STEP_SLACK * sighting.size) < NEAR:
                continue
            if all(len(distinct([sighting, Sighting(joints, None, 0)])) == 2 for joints in here.values()):
                yield number, sighting
