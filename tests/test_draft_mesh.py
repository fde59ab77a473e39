"""Meshes of the draft: what they cover, and which pixel of the texture a pixel of the frame shows."""

import cv2
import numpy as np
import pytest
from animate_anywhere.vision.draft.mesh import OUTSIDE, Mesh, cell_size, make_mesh, texture_map


@pytest.fixture
def disc():
    alpha = np.zeros((90, 120), np.float32)
    cv2.circle(alpha, (60, 45), 30, 1, -1)
    return alpha


def covered(found):
    return found[..., 0] > OUTSIDE + 1


def test_a_mesh_covers_everything_visible_and_little_more(disc):
    mesh = make_mesh(disc, 6)
    found = texture_map(mesh, mesh.vertices, (0, 0, 120, 90), np.inf)
    assert covered(found)[disc > 0].all()
    assert covered(found).sum() < 1.5 * (disc > 0).sum()


def test_a_mesh_at_rest_shows_each_pixel_itself(disc):
    mesh = make_mesh(disc, 7)
    found = texture_map(mesh, mesh.vertices, (0, 0, 120, 90), np.inf)
    y, x = np.nonzero(covered(found))
    np.testing.assert_allclose(found[y, x], np.column_stack([x, y]), atol=1e-3)


def test_an_affine_map_is_inverted_everywhere_without_a_hole(disc):
    """Against the closed form: a mesh moved by A x + b shows A⁻¹ (pixel - b)."""
    mesh = make_mesh(disc, 6)
    matrix, shift = np.array([[1.3, -0.4], [0.5, 0.9]]), np.array([20.5, -31.25])
    box = (0, 0, 160, 130)
    found = texture_map(mesh, mesh.vertices @ matrix.T + shift, box, np.inf)
    y, x = np.mgrid[:130, :160]
    wanted = (np.stack([x, y], -1) - shift) @ np.linalg.inv(matrix).T
    there = covered(found)
    np.testing.assert_allclose(found[there], wanted[there], atol=2e-3)
    inside = cv2.remap(disc, *np.float32(wanted).transpose(2, 0, 1), cv2.INTER_NEAREST) > 0
    assert there[inside].all()


def test_a_box_is_a_window_of_the_frame(disc):
    mesh = make_mesh(disc, 6)
    whole = texture_map(mesh, mesh.vertices, (0, 0, 120, 90), np.inf)
    part = texture_map(mesh, mesh.vertices, (50, 30, 80, 60), np.inf)
    np.testing.assert_allclose(part, whole[30:60, 50:80], atol=1e-4)


def two_triangles():
    """The left and the right half of a texture, both brought to the same place."""
    vertices = np.array([[0, 0], [10, 0], [0, 10], [20, 0], [30, 0], [20, 10]], float)
    return vertices, np.vstack([vertices[:3], vertices[:3]])


@pytest.mark.parametrize(("triangles", "column"), [([[0, 1, 2], [3, 4, 5]], 22), ([[3, 4, 5], [0, 1, 2]], 2)])
def test_the_last_triangle_at_a_pixel_is_on_top(triangles, column):
    vertices, positions = two_triangles()
    found = texture_map(Mesh(vertices, np.array(triangles)), positions, (0, 0, 12, 12), np.inf)
    np.testing.assert_allclose(found[2, 2], (column, 2), atol=1e-3)


def test_a_triangle_that_is_stretched_too_far_is_torn():
    vertices, _ = two_triangles()
    mesh = Mesh(vertices, np.array([[0, 1, 2], [3, 4, 5]]))
    positions = vertices.copy()
    positions[4] = 60, 0
    found = texture_map(mesh, positions, (0, 0, 70, 12), longest_edge=30.0)
    assert covered(found)[1, 1] and not covered(found)[1, 25]
    assert covered(texture_map(mesh, positions, (0, 0, 70, 12), longest_edge=50.0))[1, 25]


def test_what_lies_outside_the_frame_is_left_out():
    vertices, _ = two_triangles()
    mesh = Mesh(vertices, np.array([[0, 1, 2]]))
    assert not covered(texture_map(mesh, vertices + 100, (0, 0, 12, 12), np.inf)).any()


def test_cells_grow_with_the_body_and_are_never_tiny():
    assert (cell_size(48), cell_size(480), cell_size(960)) == (4, 10, 20)
