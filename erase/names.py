"""The former home of what `erase.registry` holds."""

from __future__ import annotations

from erase.registry import DEFAULT_METHOD as DEFAULT_METHOD
from erase.registry import HUB_ID as HUB_ID
from erase.registry import PACKAGE as PACKAGE
from erase.registry import data_folder as data_folder
from erase.registry import is_hub_id as is_hub_id
from erase.registry import known as known
from erase.registry import load as load
from erase.registry import nearest as nearest
from erase.registry import path_of as path_of
from erase.registry import unknown as unknown
