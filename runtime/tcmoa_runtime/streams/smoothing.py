"""Temporal smoothing of prompts against flicker, from outside the graph: by alpha and beta alone, on any backend.

Wanted, per token and TC-MoA k, is exponential smoothing of the raw prompts p, s(t) = (1 - w) p(t) + w s(t - 1), and
Eq. 8 with the user's alpha and beta on s. But p(t) is not known before the run, and all K TC-MoAs and both sources
share one alpha' and one beta' to reach it: x gets 0.5 + alpha' (p - 0.5) + beta', y the same with - beta'.

With the centred prompt q = p - 0.5 of x and 0.5 - p of y both signs of beta become one. The best shared constant is then
the mean d of the centred state over k and both sources, mean_k (s_x - s_y) / 2, and with a share v for the state

    alpha' = alpha (1 - v),    beta' = beta + alpha v d(t - 1)

reaches alpha [(1 - v) q + v d] + beta. For v = w this is the wanted smoothing where all TC-MoAs agree. Where they do not,
their differences would be scaled down together with their noise: a steady change of the picture, v times the spread of
the state around d. So v is the least-squares choice between both: with V the mean square of that spread and N the mean
square of the noise of p around s, the distance from the wanted (mean over k, x and y) is v^2 V + (v - w)^2 N, least at

    v = w N / (V + N).

After the run p(t) is recovered exactly, from the prompts that came out and the alpha' and beta' that went in, and every
TC-MoA's state follows its own prompt with w, whatever v was.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import Frame
from tcmoa_runtime.prompts import Map, prompt_map
from tcmoa_runtime.streams import frames

FLICKER_WEIGHT: Final = 1.0
MOTION: Final = 3.0
CUT = 24.0
GAP_SECONDS: Final = 1.0
NOISE_SECONDS = 1.0
NOISE_FLOOR = 1e-5
LEAST_SCALE = 1e-3
NOISE_MOST = 3.0
CELLS = 2


class PromptSmoother:
    def __init__(self, grid, size, *, token, seconds, motion=MOTION):
        self.grid,self.size,self._token=grid,size,token
        self._tau=frames.seconds(seconds,'smoothing'); self._motion=motion
        cell = None if token is None else token//CELLS
        self._cells=(grid[0]*CELLS,grid[1]*CELLS) if cell is None else tuple(math.ceil(v/cell) for v in size)
        self.reset()
    def reset(self):
        self._state=None; self._sources=None; self._weight=None; self._noise=None; self._time=None
        self._levels=None
    def before(self,x,y,time,scale,shift):
        scale,shift=[prompt_map(v,n,1,self.grid)[0] if np.ndim(v) else v for v,n in ((scale,'s'),(shift,'b'))]
        now=[self._pool(f) for f in (x,y)]
        shapes=(x.shape,y.shape)
        dt=None if self._time is None else time-self._time
        if dt is not None and not (0<dt<=GAP_SECONDS): self.reset()
        self._time=time
        if self._state is None or self._sources is None or self._tau==0:
            self._sources=now; self._weight=np.zeros(self.grid,np.float32); self._in=(scale,shift)
            self._levels=[0,0]
            return scale,shift
        w=np.full(self.grid,math.exp(-dt/self._tau),np.float32)
        if math.isfinite(self._motion):
            w*=self._still(now,dt)
        # references follow
        wc=np.repeat(np.repeat(w,CELLS,0),CELLS,1)[:self._cells[0],:self._cells[1]] if self.REF else 0
        self._sources=[n+wc*(s-n) for n,s in zip(now,self._sources)]
        self._weight=w; self._dt=dt
        V,d=self._spread,self._d
        N=FLICKER_WEIGHT*(self._noise+NOISE_FLOOR)
        v=w*N/(N+V) if np.isfinite(FLICKER_WEIGHT) else w
        self.v=v
        a=scale*(1-v); b=shift+scale*v*d
        self._in=(a,b)
        return a,b
    REF=True
    def _pool(self,f):
        import cv2
        s=cv2.resize(f,self._cells[::-1],interpolation=cv2.INTER_AREA)
        return s.astype(np.float32) if s.ndim==2 else s.mean(2,dtype=np.float32)
    def _still(self,now,dt):
        import cv2
        g=np.ones(self.grid,np.float32)
        self.changes=[]
        for i,(n,s) in enumerate(zip(now,self._sources)):
            c=np.abs(n-s)
            c=np.pad(c,((0,self.grid[0]*CELLS-c.shape[0]),(0,self.grid[1]*CELLS-c.shape[1])),mode='edge')
            c=c.reshape(self.grid[0],CELLS,self.grid[1],CELLS).max((1,3))
            self.changes.append(c)
            thr=self._motion+min(float(np.median(c)),NOISE_MOST)
            g=np.minimum(g,np.clip(2-c/thr,0,1))
        return cv2.erode(g,np.ones((3,3),np.uint8))
    def after(self,prompt):
        a,b=self._in
        p=np.empty_like(prompt)
        p[:,0]=(prompt[:,0]-.5-b)/a+.5
        p[:,1]=(prompt[:,1]-.5+b)/a+.5
        if self._state is None:
            self._state=p; self._noise=np.zeros(self.grid,np.float32)
        else:
            w=self._weight
            dev=((p-self._state)**2).mean((0,1))
            r=np.where(w>0,1-math.exp(-self._dt/NOISE_SECONDS),0)
            self._noise+=r*(dev-self._noise)
            self._state=p+w*(self._state-p)
        s=self._state
        self._d=((s[:,0]-s[:,1])/2).mean(0)
        q=np.stack([s[:,0]-.5,.5-s[:,1]])
        self._spread=((q-self._d)**2).mean((0,1))
        self.p=p
